"""Rate the faces of a batch; one part file of ``ratings`` per video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from warehouse.errors import MediaError
from warehouse.ids import sha256_of
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    import numpy as np

    from annotation.raters import Rater

ForEach = Callable[
    [Callable[[pl.DataFrame], int], list[pl.DataFrame]],
    Iterable[tuple[pl.DataFrame, int | Exception]],
]

_CHUNK = 256
"""Crops in memory at once: 256 of 224 px are 38 MB."""


def rate_batch(
    home: Home,
    batch: str,
    rater: Rater,
    *,
    each: ForEach | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Rate the kept faces of a batch that are unrated; return their number.

    A face whose crop is missing or damaged stays unrated; the asset's check counts it.

    Args:
        each: maps a function over videos, possibly on other machines; one after the other by
            default. The rater must be picklable; those of ``raters.load`` are.
        progress: called with rated videos and all videos.

    Raises:
        Exception: the first error of a video, after the other videos are rated.
    """
    faces = tables.read(home, "faces", batch=batch).filter(pl.col("verdict") == "kept")
    by_video = faces.partition_by("video_id", maintain_order=True)
    missing = [video for video in by_video if not _is_rated(home, video, rater.rater_id)]
    done, rated, failures = len(by_video) - len(missing), 0, []
    rate = partial(_rate_and_write, home=home, rater=rater)
    for _, outcome in (each or _one_by_one)(rate, missing):
        if isinstance(outcome, Exception):
            failures.append(outcome)
            continue
        rated, done = rated + outcome, done + 1
        progress(done, len(by_video))
    for orphan in tables.parts(home, "ratings", batch=batch) - set(faces["video_id"]):
        tables.remove(home, "ratings", part=orphan, batch=batch)
    if failures:
        raise failures[0]
    return rated


def _one_by_one(
    function: Callable[[pl.DataFrame], int], videos: list[pl.DataFrame]
) -> Iterator[tuple[pl.DataFrame, int | Exception]]:
    return ((video, function(video)) for video in videos)


def _is_rated(home: Home, video: pl.DataFrame, rater_id: str) -> bool:
    known = tables.metadata(home, "ratings", **_part(video)).get("fingerprint")
    return known == _fingerprint(video, rater_id)


def _part(video: pl.DataFrame) -> dict[str, str]:
    return {"part": video["video_id"][0], "batch": video["batch"][0]}


def _rate_and_write(video: pl.DataFrame, *, home: Home, rater: Rater) -> int:
    frame = _rate_video(home, video, rater)
    metadata = {"fingerprint": _fingerprint(video, rater.rater_id)}
    tables.write(home, "ratings", frame, **_part(video), metadata=metadata)
    return frame.height


def _rate_video(home: Home, video: pl.DataFrame, rater: Rater) -> pl.DataFrame:
    frames = [TABLES["ratings"].empty()]
    for face_ids, crops in _chunks(home, video):
        ratings = rater.rate(crops)
        frames.append(
            pl.DataFrame(
                {
                    "face_id": face_ids,
                    "rater_id": [rater.rater_id] * len(face_ids),
                    "batch": [video["batch"][0]] * len(face_ids),
                    "expression": ratings.expression,
                    "open_set": ratings.open_set,
                    "au": ratings.au,
                    "feature": ratings.feature.astype("float16"),
                },
                schema_overrides=TABLES["ratings"].columns,
            )
        )
    return pl.concat(frames)


def _chunks(home: Home, video: pl.DataFrame) -> Iterator[tuple[list[str], np.ndarray]]:
    import numpy as np

    for rows in video.select("face_id", "crop").iter_slices(_CHUNK):
        found = []
        for face_id, key in rows.iter_rows():
            try:
                found.append((face_id, media.load(home, key)))
            except MediaError:
                continue
        if found:
            yield [face_id for face_id, _ in found], np.stack([crop for _, crop in found])


def _fingerprint(video: pl.DataFrame, rater_id: str) -> str:
    pairs = sorted(video.select("face_id", "crop").iter_rows())
    return sha256_of([rater_id.encode(), repr(pairs).encode()])[:16]
