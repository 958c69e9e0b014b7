"""Faces large enough to judge, each with what is said of it: a picture for Dagster's pages."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import polars as pl

from warehouse.errors import MediaError
from warehouse.storage import media, views
from warehouse.storage.home import Home

if TYPE_CHECKING:
    import numpy as np

SHOWN = 24
_FACE, _LINE, _LINES, _GAP = 112, 14, 4, 8
_WIDTH = 152
_PAGE = 960
_LETTERS = 25


def gallery(home: Home, faces: pl.DataFrame, *, limit: int = SHOWN) -> str:
    """A Markdown picture of the first ``limit`` faces, worst first if they are.

    Args:
        faces: ``crop`` (media key), ``lines`` (list of up to four short texts, printed below)
            and, to be shown side by side, ``beside`` (another media key).

    Returns:
        ``![faces](data:image/webp;base64,…)``, about 3 kB a face, or a line that there are none.
    """
    import cv2
    import numpy as np

    tiles = [_tile(home, row) for row in faces.head(limit).iter_rows(named=True)]
    if not tiles:
        return "_no faces_"
    columns = max(1, min(len(tiles), _PAGE // tiles[0].shape[1]))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    lines = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    sheet = np.vstack(lines)
    _, data = cv2.imencode(".webp", sheet[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 75])
    return f"![faces](data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()})"


def repeats(home: Home, audited: pl.DataFrame, *, limit: int = SHOWN) -> str:
    """``gallery`` of near duplicates beside what they repeat, the least alike of them first.

    Args:
        audited: rows of the audit ``near_duplicates``.
    """
    crops = views.query(home, "SELECT face_id, crop FROM faces")
    pairs = (
        audited.filter("flag")
        .sort(pl.col("score"), pl.col("face_id"), descending=[True, False])
        .head(limit)
        .join(crops, on="face_id")
        .join(crops.rename({"face_id": "detail", "crop": "beside"}), on="detail")
    )
    lines = [
        [f"{face} repeats", best, f"{score:.2f} of 1"]
        for face, best, score in pairs.select("face_id", "detail", "score").iter_rows()
    ]
    shown = pairs.with_columns(lines=pl.Series(lines, dtype=pl.List(pl.String)))
    return gallery(home, shown.sort("score", "face_id", descending=[True, False]), limit=limit)


def _tile(home: Home, row: dict[str, object]) -> np.ndarray:
    import cv2
    import numpy as np

    keys = [row["crop"]] + ([row["beside"]] if "beside" in row else [])
    width = max(_WIDTH, len(keys) * (_FACE + 2) + _GAP)
    tile = np.full((_FACE + _LINE * _LINES + _GAP, width, 3), 255, dtype=np.uint8)
    for number, key in enumerate(keys):
        left = number * (_FACE + 2)
        tile[:_FACE, left : left + _FACE] = _face(home, key)
    lines = row["lines"]
    assert isinstance(lines, list)
    letters = _LETTERS * width // _WIDTH
    for number, line in enumerate(lines[:_LINES]):
        place = (1, _FACE + _LINE * (number + 1) - 3)
        # The font of OpenCV knows no other letters.
        text = str(line).encode("ascii", "replace").decode()[:letters]
        cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (30,) * 3, 1, cv2.LINE_AA)
    return tile


def _face(home: Home, key: object) -> np.ndarray | int:
    import cv2

    try:
        return cv2.resize(media.load(home, str(key)), (_FACE, _FACE), interpolation=cv2.INTER_AREA)
    except MediaError:
        return 200
