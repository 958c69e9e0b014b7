from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from pipeline.reporting import tables
from warehouse.storage import media
from warehouse.storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path)


def faces(home: Home, shades: list[int]) -> pl.DataFrame:
    keys = [
        media.store(home, "crops", np.full((224, 224, 3), shade, dtype=np.uint8))
        for shade in shades
    ]
    return pl.DataFrame({"crop": keys, "verdict": ["kept"] * len(keys)})


def decoded(markdown: str) -> np.ndarray:
    data = base64.b64decode(markdown.split("base64,")[1].rstrip(")"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_each_face_has_its_place(home: Home) -> None:
    sheet = decoded(tables.contact_sheet(home, faces(home, [40, 120, 200])))
    tile = sheet.shape[1] // 3
    middles = [int(sheet[tile // 2, tile * at + tile // 2].mean()) for at in range(3)]
    assert [abs(a - b) < 12 for a, b in zip(middles, [40, 120, 200], strict=True)] == [True] * 3


def test_a_large_batch_still_fits_an_event(home: Home) -> None:
    noise = np.random.default_rng(0)
    keys = [
        media.store(home, "crops", noise.integers(0, 255, (224, 224, 3), dtype=np.uint8))
        for _ in range(24)
    ]
    many = pl.DataFrame({"crop": keys * 50})
    assert len(tables.contact_sheet(home, many)) < 200_000


def test_a_lost_crop_is_a_gray_tile(home: Home) -> None:
    frame = faces(home, [10])
    media.path_of(home, frame["crop"][0]).unlink()
    sheet = decoded(tables.contact_sheet(home, frame))
    assert abs(int(sheet[36, 36].mean()) - 200) < 12


def test_no_faces_is_said_in_words(home: Home) -> None:
    assert tables.contact_sheet(home, faces(home, [])) == "_no faces_"


def test_cells_cannot_break_the_table() -> None:
    text = tables.table(pl.DataFrame({"reason": ["a|b\n<img src=x>"], "n": [0.5]}))
    assert text.splitlines()[2] == "| a\\|b &lt;img src=x> | 0.500 |"
