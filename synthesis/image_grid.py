"""Contact sheets of faces, and heat maps of counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_TILE = 96
_CAPTION = 16
_MARGIN = 108
_CELL = 22
_LACKING, _ENOUGH = np.array((214, 96, 77)), np.array((67, 147, 195))


def faces(
    images: np.ndarray,
    *,
    columns: int,
    captions: Sequence[str] = (),
    heads: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> np.ndarray:
    """Draw a grid of faces as uint8[h, w, 3] RGB.

    Args:
        images: uint8[n, s, s] or uint8[n, s, s, 3], row by row.
        captions: one short line under each face.
        heads: above the columns.
        rows: left of the rows.
    """
    lines = -(-len(images) // columns)
    left, top = (_MARGIN if rows else 0), (_CAPTION if heads else 0)
    height = _TILE + (_CAPTION if captions else 0)
    sheet = np.full((top + lines * height, left + columns * _TILE, 3), 255, np.uint8)
    for at, image in enumerate(images):
        y, x = top + at // columns * height, left + at % columns * _TILE
        sheet[y : y + _TILE, x : x + _TILE] = _enlarged(image)
        if captions:
            _write(sheet, captions[at], x + 2, y + _TILE + 12)
    for at, head in enumerate(heads):
        _write(sheet, head, left + at * _TILE + 4, 12)
    for at, row in enumerate(rows):
        _write(sheet, row, 3, top + at * height + _TILE // 2)
    return sheet


def heat_map(
    have: np.ndarray,
    wanted: np.ndarray,
    *,
    columns: Sequence[str],
    rows: Sequence[str],
) -> np.ndarray:
    """Draw counts as uint8[h, w, 3] RGB: red for none, blue for enough.

    Args:
        have: [r, c]; NaN cells stay white.
        wanted: [r, c], all above 0.
    """
    left, top = 80, 44
    picture = np.full((top + have.shape[0] * _CELL, left + have.shape[1] * _CELL, 3), 255, np.uint8)
    for row, column in np.argwhere(np.isfinite(have)):
        y, x = top + row * _CELL, left + column * _CELL
        value = have[row, column]
        picture[y : y + _CELL - 1, x : x + _CELL - 1] = _shade(value / wanted[row, column])
        text = f"{value:.0f}" if value < 1000 else f"{value / 1000:.0f}k"
        _write(picture, text, x + 2, y + 15, size=0.6)
    for at, name in enumerate(columns):
        _write(picture, name, left + at * _CELL + 1, top - 6 - 14 * (at % 2), size=0.65)
    for at, name in enumerate(rows):
        _write(picture, name, 3, top + at * _CELL + 15)
    return picture


def write(path: Path, picture: np.ndarray) -> None:
    """Write an image uint8[h, w] or uint8[h, w, 3] RGB as PNG, atomically."""
    from warehouse.storage import atomic, media

    colours = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    atomic.write_bytes(path, media.encode(np.ascontiguousarray(colours), ".png"))


def _shade(share: float) -> np.ndarray:
    share = min(max(float(share), 0.0), 1.0)
    pale = np.full(3, 247)
    near = share * 2 if share < 0.5 else 2 - share * 2
    return (pale * near + (_LACKING if share < 0.5 else _ENOUGH) * (1 - near)).astype(np.uint8)


def _enlarged(image: np.ndarray) -> np.ndarray:
    import cv2

    colours = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    return cv2.resize(colours, (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)


def _write(picture: np.ndarray, text: str, x: int, y: int, *, size: float = 0.75) -> None:
    import cv2

    place = (int(x), int(y))
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_PLAIN, size, (50, 50, 50), 1, cv2.LINE_AA)
