"""A batch through the machine rater: one file of ``ratings`` per video, redone only when needed."""

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

Each = Callable[
    [Callable[[pl.DataFrame], int], list[pl.DataFrame]],
    Iterable[tuple[pl.DataFrame, int | Exception]],
]

_CHUNK = 256
"""Crops held in memory at once: 256 of 224 px are 38 MB."""


def rate_batch(
    home: Home,
    batch: str,
    rater: Rater,
    *,
    each: Each | None = None,
    say: Callable[[int, int], None] | None = None,
) -> int:
    """Rate every kept face of a batch that this rater has not rated yet; return how many.

    A crop whose file is gone or damaged is left unrated; the check of the asset counts it.

    Args:
        each: maps a function over videos, on other machines perhaps; one by one by default.
            The rater must be picklable then; those of ``raters.load`` are.

    Raises:
        Exception: the first that rating a video raised; the other videos are rated first.
    """
    faces = tables.read(home, "faces", batch=batch).filter(pl.col("verdict") == "kept")
    by_video = faces.partition_by("video_id", maintain_order=True)
    owed = [video for video in by_video if not _is_rated(home, video, rater.rater_id)]
    done, rated, failures = len(by_video) - len(owed), 0, []
    for _, outcome in (each or _one_by_one)(partial(_keep_ratings, home=home, rater=rater), owed):
        if isinstance(outcome, Exception):
            failures.append(outcome)
            continue
        rated, done = rated + outcome, done + 1
        if say:
            say(done, len(by_video))
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
    place = {"part": video["video_id"][0], "batch": video["batch"][0]}
    known = tables.metadata(home, "ratings", **place).get("fingerprint")
    return known == _stamp(video, rater_id)


def _keep_ratings(video: pl.DataFrame, *, home: Home, rater: Rater) -> int:
    frame, stamp = _rate_video(home, video, rater), _stamp(video, rater.rater_id)
    place = {"part": video["video_id"][0], "batch": video["batch"][0]}
    tables.write(home, "ratings", frame, **place, metadata={"fingerprint": stamp})
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


def _stamp(video: pl.DataFrame, rater_id: str) -> str:
    pairs = sorted(video.select("face_id", "crop").iter_rows())
    return sha256_of([rater_id.encode(), repr(pairs).encode()])[:16]
