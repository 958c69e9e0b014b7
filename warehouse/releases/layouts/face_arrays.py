"""Write the faces within segments as arrays, a file per segment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from warehouse.releases.layouts import pixels
from warehouse.releases.layouts.core import Export
from warehouse.releases.schema import SPLITS


def uncounted(export: Export) -> pl.DataFrame:
    """Return the faces uncounted: the rows of the export are segments."""
    if not any(export.files("data", split) for split in SPLITS):
        schema = {"face_id": pl.String, "video_id": pl.String, "subject_id": pl.String}
        return pl.DataFrame(schema=schema | {"time_s": pl.Float64})
    counted = dict(export.counts_in), export.left_out.copy()
    faces = export.faces
    export.counts_in, export.left_out = counted
    return faces


def within(faces: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """Return ``segment_id, face_id, time_s, place``: faces by segment.

    Faces of the subjects of a segment count; if its subjects are unknown, all faces of the video.
    ``place`` counts from 0 in the order of time.
    """
    asked = segments.select("segment_id", "video_id", "start_s", "end_s", "subject_ids")
    known = faces.select("face_id", "video_id", "subject_id", "time_s").drop_nulls("video_id")
    pairs = asked.join(known, on="video_id").filter(pl.col("time_s").is_between("start_s", "end_s"))
    own = pl.col("subject_id").is_in(pl.col("subject_ids"))
    named = own.any().over("segment_id")
    kept = pairs.filter(own | ~named).sort("segment_id", "time_s", "face_id")
    place = pl.int_range(pl.len()).over("segment_id")
    return kept.select("segment_id", "face_id", "time_s", place=place)


def write(
    export: Export, faces: pl.DataFrame, file: Callable[[str], str], *, size: int, bgr: bool
) -> None:
    """Write uint8[n, size, size, 3] per segment; one picture is in memory.

    Args:
        faces: of ``within``.
        file: path of the array of a segment.
        bgr: order of the channels, else RGB.
    """
    if faces.is_empty():
        return
    counts = faces.group_by("segment_id", maintain_order=True).len()
    arrays: dict[str, np.ndarray] = {}
    for segment, count in counts.iter_rows():
        shape = (count, size, size, 3)
        path = export.path(file(segment))
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    uses: dict[str, list[tuple[str, int]]] = {}
    for segment, face, place in faces.select("segment_id", "face_id", "place").iter_rows():
        uses.setdefault(face, []).append((segment, place))
    files = [path for split in SPLITS for path in export.files("data", split)]
    for row in export.stream(files, ["face_id", "image"]):
        for segment, place in uses.get(row["face_id"], ()):
            image = pixels.resize(pixels.decode(row["image"]["bytes"]), size)
            # One open array at a time: a release has more segments than files may be open.
            if segment not in arrays:
                arrays.clear()
                arrays[segment] = np.load(export.path(file(segment)), mmap_mode="r+")
            arrays[segment][place] = image if bgr else image[:, :, ::-1]


def frames_of(faces: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the faces of each segment in the order of their array."""
    return {
        str(segment): part.to_dicts()
        for (segment,), part in faces.group_by("segment_id", maintain_order=True)
    }
