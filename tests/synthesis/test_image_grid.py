"""Image grids: the place of each face and the colour of each count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthesis import image_grid


@pytest.mark.parametrize(
    ("n", "columns", "captions", "heads", "rows", "shape"),
    [
        (1, 1, False, False, False, (96, 96)),
        (5, 4, False, False, False, (192, 384)),
        (5, 4, True, False, False, (224, 384)),
        (4, 2, False, True, True, (208, 300)),
    ],
)
def test_faces__size(
    n: int, columns: int, captions: bool, heads: bool, rows: bool, shape: tuple[int, int]
) -> None:
    found = image_grid.faces(
        np.zeros((n, 8, 8), np.uint8),
        columns=columns,
        captions=["x"] * n if captions else (),
        heads=["h"] * columns if heads else (),
        rows=["r"] * -(-n // columns) if rows else (),
    )
    assert found.shape == (*shape, 3)
    assert found.dtype == np.uint8


def test_faces__row_by_row() -> None:
    tones = np.array([10, 60, 110, 160], np.uint8)
    images = np.broadcast_to(tones[:, None, None], (4, 8, 8)).copy()
    found = image_grid.faces(images, columns=2)
    assert [found[y, x, 0] for y in (48, 144) for x in (48, 144)] == tones.tolist()
    colour = image_grid.faces(np.full((1, 8, 8, 3), (1, 2, 3), np.uint8), columns=1)
    assert colour[48, 48].tolist() == [1, 2, 3]


def test_heat_map__colours() -> None:
    have, wanted = np.array([[0.0, 50.0, 999.0, np.nan]]), np.full((1, 4), 50.0)
    picture = image_grid.heat_map(have, wanted, columns=list("abcd"), rows=["row"]).astype(int)
    corner = [picture[46, 80 + 22 * at + 20] for at in range(4)]
    assert corner[0][0] > corner[0][2] + 50
    assert corner[1][2] > corner[1][0] + 50
    assert (corner[1] == corner[2]).all()
    assert (corner[3] == 255).all()


def test_write__round_trip(tmp_path: Path) -> None:
    import cv2

    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    image_grid.write(tmp_path / "deep" / "x.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "deep" / "x.png"))[..., ::-1], image)
    image_grid.write(tmp_path / "gray.png", image[..., 0])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "gray.png"), 0), image[..., 0])
