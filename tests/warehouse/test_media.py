from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from warehouse.errors import MediaError
from warehouse.storage import media
from warehouse.storage.home import Home

Draw = Callable[..., np.ndarray]


def test_store__crops_are_lossless(home: Home, draw: Draw) -> None:
    image = draw(1)
    key = media.store(home, "crops", image)
    assert key.startswith("crops/")
    assert np.array_equal(media.load(home, key), image)


def test_store__equal_pixels_are_one_file(home: Home, draw: Draw) -> None:
    keys = {media.store(home, "crops", draw(seed)) for seed in (1, 2, 1)}
    assert len(keys) == 2
    assert sum(path.is_file() for path in home.media.rglob("*")) == 2


def test_store__contexts_keep_colour_order(home: Home) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, :, 0] = 250
    back = media.load(home, media.store(home, "contexts", red))
    assert back[16, 16, 0] > 200
    assert back[16, 16, 2] < 50


@pytest.mark.parametrize("damage", [b"", b"no picture", None])
def test_load__damaged_file_until_stored_again(home: Home, draw: Draw, damage) -> None:
    key = media.store(home, "crops", draw(3))
    path = media.path_of(home, key)
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(MediaError, match="Ingest its batch again"):
        media.load(home, key)
    assert media.store(home, "crops", draw(3)) == key
    assert np.array_equal(media.load(home, key), draw(3))


@pytest.mark.parametrize(
    "key", ["../tables/x", "crops/../../x", "/etc/passwd", "", "other/ab/x.png"]
)
def test_path_of__refuses_keys_outside_media(home: Home, key: str) -> None:
    with pytest.raises(MediaError, match="media key"):
        media.path_of(home, key)
