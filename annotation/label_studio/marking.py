"""Draw the box of a face into a copy of its context.

The labelling page shows the copy. Stored contexts hold plain pixels, so that
a release can use them. A frame with several faces must still say which one is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import polars as pl

from warehouse.errors import MediaError
from warehouse.geometry import context_region
from warehouse.storage import atomic, media, mirror, tables
from warehouse.storage.home import Home

FOLDER = "marked"
"""Folder of the media store with the copies, each named after its face."""

_COLOUR = (255, 214, 10)
_THREADS = 4


def mark_contexts(home: Home, faces: pl.DataFrame) -> pl.DataFrame:
    """Replace each ``context`` by a copy that shows the box of the face.

    A copy is made once. A face without box, frame size or readable context keeps its context.

    Args:
        faces: ``face_id, context`` (media key or null) and any other columns.
    """
    asked = faces.filter(pl.col("context").is_not_null()).unique("face_id")
    if asked.is_empty():
        return faces
    sizes = tables.scan(home, "videos").select("video_id", "batch", "width", "height")
    boxes = (
        tables.scan(home, "faces")
        .filter(pl.col("face_id").is_in(asked["face_id"].implode()))
        .select("face_id", "video_id", "batch", "bbox")
        .join(sizes, on=["video_id", "batch"])
        .drop_nulls()
        .collect()
        .unique("face_id")
    )
    rows = asked.join(boxes, on="face_id").select("face_id", "context", "bbox", "width", "height")
    mirror.sync(home.media / FOLDER)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(partial(_marked, home), rows.iter_rows(named=True))
        keys = {row["face_id"]: key for row, key in zip(rows.to_dicts(), found, strict=True) if key}
    marked = pl.col("face_id").replace_strict(keys, default=None, return_dtype=pl.String)
    return faces.with_columns(context=pl.coalesce(marked, "context"))


def _marked(home: Home, row: dict[str, Any]) -> str | None:
    key = f"{FOLDER}/{row['face_id']}.jpg"
    path = home.media / key
    if path.exists():
        return key
    try:
        picture = media.load(home, row["context"])
    except MediaError:
        return None
    drawn = draw_box(picture, row["bbox"], width=row["width"], height=row["height"])
    atomic.write_bytes(path, media.encode(drawn, ".jpg"))
    return key


def draw_box(picture: Any, bbox: Sequence[float], *, width: int, height: int) -> Any:
    """Return a context uint8[h, w, 3] RGB with the box of its face.

    Args:
        bbox: ``x y w h`` in frame pixels.
        width, height: size of the frame.
    """
    import cv2

    left, top, right, bottom = context_region(bbox, width=width, height=height)
    scale = max(picture.shape[:2]) / max(right - left, bottom - top)
    x, y, w, h = bbox
    low = (round((x - left) * scale), round((y - top) * scale))
    high = (round((x + w - left) * scale), round((y + h - top) * scale))
    return cv2.rectangle(picture.copy(), low, high, _COLOUR, thickness=2)
