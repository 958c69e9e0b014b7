from __future__ import annotations

import numpy as np
import pytest

from annotation.raters.training import targets
from tests.annotation.raters.drawn_ferplus import SHAPES
from warehouse.errors import TableError

NAMES = list(SHAPES)


def shapes_with(**values: float) -> np.ndarray:
    row = np.zeros((1, len(NAMES)), dtype=np.float32)
    for name, value in values.items():
        row[0, NAMES.index(name)] = value
    return row


def proxies_of(shapes: np.ndarray) -> dict[int, float]:
    units, proxies = targets.au_proxies(shapes, NAMES)
    return dict(zip(units, proxies[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.4}, {12: 0.6, 25: 0.0}),
        ({"jawOpen": 0.7}, {26: 0.7, 25: 0.7}),
        ({"jawOpen": 0.7, "mouthClose": 0.6}, {26: 0.7, 25: 0.1}),
        ({"mouthFunnel": 0.3, "mouthClose": 0.9}, {22: 0.3, 25: 0.0}),
    ],
)
def test_au_proxies__by_hand(shapes: dict[str, float], expected: dict[int, float]) -> None:
    proxies = proxies_of(shapes_with(**shapes))
    assert {unit: proxies[unit] for unit in expected} == pytest.approx(expected)


def test_au_proxies__leaves_out_disputed_units() -> None:
    assert not {11, 23, 24, 27, 34} & set(proxies_of(shapes_with()))


def test_au_proxies__mirrored_face_keeps_its_targets() -> None:
    mirrored = [
        name.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for name in NAMES
    ]
    row = np.random.default_rng(0).random((1, len(NAMES))).astype(np.float32)
    swapped = row[:, [NAMES.index(name) for name in mirrored]]
    assert proxies_of(row) == pytest.approx(proxies_of(swapped))
    assert not np.array_equal(row, swapped)


def test_au_proxies__no_landmarks() -> None:
    _, proxies = targets.au_proxies(np.full((1, len(NAMES)), np.nan, np.float32), NAMES)
    assert np.isnan(proxies).all()


def test_rescale__silent_units_are_left_out_and_others_reach_one() -> None:
    rng = np.random.default_rng(0)
    proxies = np.column_stack([rng.random(500) * 0.2, rng.random(500) * 1e-5]).astype(np.float32)
    proxies[3] = np.nan
    scale = targets.robust_scale([12, 6], proxies)
    assert set(scale) == {12}
    scaled = targets.rescale([12, 6], proxies, scale)
    assert scaled.shape == (500, 1)
    assert np.nanmax(scaled) == 1
    assert np.isnan(scaled[3, 0])


def test_vote_shares__by_hand() -> None:
    nine = np.array([[3, 6, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=np.uint8)
    assert targets.vote_shares(nine)[0, :2].tolist() == pytest.approx([1 / 3, 2 / 3])
    with pytest.raises(TableError, match="a row of zeros"):
        targets.vote_shares(np.zeros((1, 10), np.uint8))
