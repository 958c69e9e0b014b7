"""Read the whole frames of released faces again, for layouts of detectors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from pipeline.faces.anonymize import blur_others
from pipeline.settings import Settings
from pipeline.video import reader
from warehouse.errors import MediaError
from warehouse.privacy.inbox import local_path
from warehouse.releases.layouts.core import FrameReader
from warehouse.storage import tables


def reader_of(settings: Settings) -> FrameReader | None:
    """Return a reader of the home's frames; None if no video is left."""
    videos = tables.scan(settings.place, "videos").select("video_id", "uri").collect()
    paths = {
        video: str(path)
        for video, uri in videos.drop_nulls().unique("video_id").iter_rows()
        if (path := local_path(settings.place, uri)).is_file()
    }
    return partial(_read, settings, paths) if paths else None


def _read(
    settings: Settings, paths: dict[str, str], rows: pl.DataFrame
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield ``video_id, frame, image`` of the frames that can be read."""
    every = tables.scan(settings.place, "faces").select("video_id", "face_id", "frame", "bbox")
    seen = every.filter(pl.col("video_id").is_in(rows["video_id"].unique().implode())).collect()
    named = set(rows["face_id"])
    for (video,), part in rows.sort("video_id", "frame").group_by("video_id", maintain_order=True):
        if (path := paths.get(str(video))) is None:
            continue
        boxes = seen.filter(pl.col("video_id") == video)
        wanted = set(part["frame"])
        try:
            for frame in reader.sample(path, fps=settings.sample_fps):
                if frame.index in wanted:
                    image = frame.image
                    if settings.blur_bystanders:
                        there = boxes.filter(pl.col("frame") == frame.index)
                        image = _hidden(image, there, named)
                    yield str(video), frame.index, image
        except MediaError:
            continue  # its frames so far count; the export counts the missing ones


def _hidden(image: np.ndarray, faces: pl.DataFrame, named: set[str]) -> np.ndarray:
    """Hide the faces that are not named; boxes of named ones stay clear."""
    other: list[Any] = []
    own: list[Any] = []
    for face, bbox in faces.select("face_id", "bbox").iter_rows():
        if bbox is not None:
            x, y, w, h = bbox
            (own if face in named else other).append((x, y, x + w, y + h))
    if not other:
        return image
    hidden = blur_others(image, boxes=np.array(other), subject=-1)
    for box in own:
        left, top, right, bottom = (max(0, round(value)) for value in box)
        hidden[top:bottom, left:right] = image[top:bottom, left:right]
    return hidden
