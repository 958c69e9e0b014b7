"""Write whole frames of segments with face and body boxes: CLIP-CAER."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.geometry import CONTEXT_SCALE
from warehouse.releases.layouts import face_arrays, pixels, segments
from warehouse.releases.layouts.core import Export, Layout

_FIELDS = ("face_id", "frame", "bbox", "frame_size")


def write(export: Export) -> None:
    """Write ``clips/<name>/<nnnnn>.jpg``, lists and two files of boxes.

    Frames are those with a released face in the segment's time; faces of others are hidden if the
    settings say so. A line of ``train.txt`` and ``test.txt`` holds folder, number of frames and
    class. No body is detected: its box surrounds three times the face boxes of the clip.

    Raises:
        ReleaseError: no video can be read any more.
    """
    if export.frames is None:
        raise ReleaseError(
            "Whole frames are needed, and no video of this home can be read",
            got="layout context-clips",
            hint="export on the machine that holds the videos",
        )
    rows = export.sets(segments.labelled(export, segments.read(export)))
    faces = face_arrays.uncounted(export)
    located = faces.filter(pl.all_horizontal(pl.col(_FIELDS).is_not_null()))
    inside = face_arrays.within(located, rows).join(located.select(_FIELDS), on="face_id").join(
        rows.select("segment_id", "video_id", "name"), on="segment_id"
    )  # fmt: skip
    seen = _pictures(export, inside)
    read = pl.DataFrame(
        sorted(seen), schema={"segment_id": pl.String, "frame": pl.Int64}, orient="row"
    )
    kept = inside.join(read, on=["segment_id", "frame"], how="semi")
    lacking = ~pl.col("segment_id").is_in(kept["segment_id"].unique().implode())
    rows = export.leave_out(rows, lacking, "no_frame")
    folders = rows.with_columns(
        path=pl.format("clips/{}", "name"),
        place=pl.lit(export.absolute("clips/")) + pl.col("name"),
    )
    _boxes(export, kept, dict(folders.select("segment_id", "place").iter_rows()))
    counts = dict(kept.unique(["segment_id", "frame"]).group_by("segment_id").len().iter_rows())
    for kind in ("train", "test"):
        part = folders.filter(pl.col("set") == kind)
        lines = (
            f"{place} {counts[segment]} {number}"
            for segment, place, number in part.select("segment_id", "place", "number").iter_rows()
        )
        export.text(f"{kind}.txt", lines)
    export.keep(folders, key="segment_id")


def _pictures(export: Export, inside: pl.DataFrame) -> set[tuple[str, int]]:
    """Write the frames; return segment and frame of those that were read."""
    assert export.frames is not None
    uses: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for segment, name, video, frame in (
        inside.select("segment_id", "name", "video_id", "frame").unique().iter_rows()
    ):
        uses.setdefault((video, frame), []).append((segment, name))
    seen = set()
    for video, frame, image in export.frames(inside.select("video_id", "frame", "face_id")):
        data = pixels.encode(np.ascontiguousarray(image[:, :, ::-1]), ".jpg")
        for segment, name in uses.get((video, frame), ()):
            export.path(f"clips/{name}/{_file(frame)}").write_bytes(data)
            seen.add((segment, frame))
    return seen


def _file(frame: int) -> str:
    return f"{frame + 1:05d}.jpg"


def _boxes(export: Export, faces: pl.DataFrame, folders: dict[str, str]) -> None:
    found: dict[str, dict[str, list[int]]] = {}
    bodies: dict[str, list[int]] = {}
    ordered = faces.sort("segment_id", "frame", "face_id")
    for segment, frame, bbox, size in ordered.select(
        "segment_id", "frame", "bbox", "frame_size"
    ).iter_rows():  # fmt: skip
        if (folder := folders.get(segment)) is None:
            continue
        x, y, w, h = bbox
        width, height = size
        found.setdefault(folder, {}).setdefault(
            _file(frame), _clipped((x, y, x + w, y + h), width, height)
        )
        reach = (CONTEXT_SCALE - 1) / 2
        body = (x - reach * w, y - reach * h, x + (1 + reach) * w, y + (1 + reach) * h)
        bodies[folder] = _union(bodies.get(folder), _clipped(body, width, height))
    export.json("face_detection_result.json", found)
    export.json("body_detection_result.json", bodies)


def _clipped(box: Any, width: int, height: int) -> list[int]:
    left, top, right, bottom = (round(value) for value in box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return [left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)]


def _union(one: list[int] | None, two: list[int]) -> list[int]:
    if one is None:
        return two
    return [*map(min, one[:2], two[:2]), *map(max, one[2:], two[2:])]


LAYOUT = Layout(
    "context-clips",
    "whole frames with boxes of face and body",
    write,
    order="academic5:raer",
    faces=False,
)
