"""Pictures and tables as Markdown, for the metadata of Dagster's assets.

A picture is ``![faces](data:image/webp;base64,…)``. It becomes a row of the event log, so a
sheet stays well below 300 kB.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import polars as pl

from warehouse.errors import MediaError
from warehouse.storage import media, views
from warehouse.storage.home import Home

if TYPE_CHECKING:
    import numpy as np

SHOWN = 24

_MARKUP = re.compile(r"([\\`|\[\]!])")
_SHADES = {"kept": (40, 140, 70), "dropped": (190, 60, 50)}

# Pixels of a tile of contact_sheet.
_TILE, _CAPTION, _COLUMNS = 72, 14, 12
# Pixels of a tile of captioned_sheet; letters per line of a tile of _WIDTH.
_FACE, _LINE, _LINES, _GAP, _WIDTH, _PAGE, _LETTERS = 112, 14, 4, 8, 152, 960, 25


def contact_sheet(
    home: Home, faces: pl.DataFrame, *, captions: list[str] | None = None, limit: int = 96
) -> str:
    """Render up to ``limit`` small faces, evenly sampled from the rows.

    Args:
        faces: ``crop`` (media key) and optionally ``verdict``, the colour of the edge.
        captions: one short line per row.
    """
    import numpy as np

    rows = faces.with_columns(caption=pl.Series(captions or [""] * faces.height, dtype=pl.String))
    if rows.height > limit:
        rows = rows[np.linspace(0, rows.height - 1, limit).round().astype(int).tolist()]
    tiles = [_tile(home, row) for row in rows.iter_rows(named=True)]
    return _sheet(tiles, columns=min(_COLUMNS, len(tiles)), quality=60)


def captioned_sheet(home: Home, faces: pl.DataFrame, *, limit: int = SHOWN) -> str:
    """Render the first ``limit`` faces, large, with lines of text below.

    Args:
        faces: ``crop`` (media key), ``lines`` (up to four short texts) and optionally ``beside``
            (media key of a face to compare with).
    """
    tiles = [_captioned_tile(home, row) for row in faces.head(limit).iter_rows(named=True)]
    columns = max(1, min(len(tiles), _PAGE // tiles[0].shape[1])) if tiles else 0
    return _sheet(tiles, columns=columns, quality=75)


def duplicates_sheet(home: Home, audited: pl.DataFrame, *, limit: int = SHOWN) -> str:
    """Render near duplicates beside what they repeat, the least similar first.

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
    shown = shown.sort("score", "face_id", descending=[True, False])
    return captioned_sheet(home, shown, limit=limit)


def table(frame: pl.DataFrame) -> str:
    """Return a small frame as Markdown; markup in cells is escaped."""
    head = "| " + " | ".join(frame.columns) + " |"
    rule = "|" + " --- |" * len(frame.columns)
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows()]
    return "\n".join([head, rule, *lines])


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    # A link or picture in a cell would be fetched by the page that shows it.
    plain = _MARKUP.sub(r"\\\1", " ".join(text.split("\n")))
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def _sheet(tiles: list[np.ndarray], *, columns: int, quality: int) -> str:
    import cv2
    import numpy as np

    if not tiles:
        return "_no faces_"
    tiles = tiles + [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    lines = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    sheet = np.vstack(lines)
    _, data = cv2.imencode(".webp", sheet[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    return f"![faces](data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()})"


def _face(home: Home, key: object, size: int) -> np.ndarray | int:
    """Load a crop at ``size`` pixels; a missing one is gray."""
    import cv2

    try:
        return cv2.resize(media.load(home, str(key)), (size, size), interpolation=cv2.INTER_AREA)
    except MediaError:
        return 200


def _tile(home: Home, row: dict[str, object]) -> np.ndarray:
    import cv2
    import numpy as np

    tile = np.full((_TILE + _CAPTION, _TILE, 3), 255, dtype=np.uint8)
    tile[:_TILE] = _face(home, row["crop"], _TILE)
    shade = _SHADES.get(str(row.get("verdict")), (255, 255, 255))
    cv2.rectangle(tile, (0, 0), (_TILE - 1, _TILE - 1), shade, 2)
    font = cv2.FONT_HERSHEY_PLAIN
    cv2.putText(tile, str(row["caption"])[:11], (1, _TILE + 11), font, 0.7, (60, 60, 60), 1)
    return tile


def _captioned_tile(home: Home, row: dict[str, object]) -> np.ndarray:
    import cv2
    import numpy as np

    keys = [row["crop"]] + ([row["beside"]] if "beside" in row else [])
    width = max(_WIDTH, len(keys) * (_FACE + 2) + _GAP)
    tile = np.full((_FACE + _LINE * _LINES + _GAP, width, 3), 255, dtype=np.uint8)
    for number, key in enumerate(keys):
        left = number * (_FACE + 2)
        tile[:_FACE, left : left + _FACE] = _face(home, key, _FACE)
    lines = row["lines"]
    assert isinstance(lines, list)
    letters = _LETTERS * width // _WIDTH
    for number, line in enumerate(lines[:_LINES]):
        place = (1, _FACE + _LINE * (number + 1) - 3)
        # The font of OpenCV has ASCII letters only.
        text = str(line).encode("ascii", "replace").decode()[:letters]
        cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (30,) * 3, 1, cv2.LINE_AA)
    return tile
