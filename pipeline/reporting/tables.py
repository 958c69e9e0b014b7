"""What a stage shows a person: contact sheets and small tables, as Markdown for Dagster."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import polars as pl

from warehouse.errors import MediaError
from warehouse.storage import media
from warehouse.storage.home import Home

if TYPE_CHECKING:
    import numpy as np

_MARKUP = re.compile(r"([\\`|\[\]!])")

_TILE = 72
_CAPTION = 14
_COLUMNS = 12
_SHADES = {"kept": (40, 140, 70), "dropped": (190, 60, 50)}


def contact_sheet(
    home: Home, faces: pl.DataFrame, *, captions: list[str] | None = None, limit: int = 96
) -> str:
    """A Markdown picture of up to ``limit`` faces, evenly spread over the rows given.

    Args:
        faces: columns ``crop`` (media key) and, if there, ``verdict`` for the colour of the edge.
        captions: one short line per row, printed under its face.

    Returns:
        ``![faces](data:image/webp;base64,…)``, about 1 kB a face: it becomes a row of the event
        log, so it is kept well below 200 kB.
    """
    import cv2
    import numpy as np

    rows = faces.with_columns(caption=pl.Series(captions or [""] * faces.height, dtype=pl.String))
    if rows.height > limit:
        rows = rows[np.linspace(0, rows.height - 1, limit).round().astype(int).tolist()]
    tiles = [_tile(home, row) for row in rows.iter_rows(named=True)]
    if not tiles:
        return "_no faces_"
    columns = min(_COLUMNS, len(tiles))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    lines = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    sheet = np.vstack(lines)
    _, data = cv2.imencode(".webp", sheet[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 60])
    return f"![faces](data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()})"


def table(frame: pl.DataFrame) -> str:
    """A Markdown table of a small frame; cell text cannot break out of its cell."""
    head = "| " + " | ".join(frame.columns) + " |"
    rule = "|" + " --- |" * len(frame.columns)
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows()]
    return "\n".join([head, rule, *lines])


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    # Neither markup nor a link or picture of somebody else's: a page would fetch it.
    plain = _MARKUP.sub(r"\\\1", " ".join(text.split("\n")))
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def _tile(home: Home, row: dict[str, object]) -> np.ndarray:
    import cv2
    import numpy as np

    tile = np.full((_TILE + _CAPTION, _TILE, 3), 255, dtype=np.uint8)
    try:
        crop = media.load(home, str(row["crop"]))
        tile[:_TILE] = cv2.resize(crop, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    except MediaError:
        tile[:_TILE] = 200
    shade = _SHADES.get(str(row.get("verdict")), (255, 255, 255))
    cv2.rectangle(tile, (0, 0), (_TILE - 1, _TILE - 1), shade, 2)
    font = cv2.FONT_HERSHEY_PLAIN
    cv2.putText(tile, str(row["caption"])[:11], (1, _TILE + 11), font, 0.7, (60, 60, 60), 1)
    return tile
