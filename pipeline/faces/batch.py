"""A batch through the two first stages: its files become videos, its videos become faces.

Restart contract: a source whose size, time stamp and sidecar row are unchanged is not read
again; a video whose faces were found with the same settings is not decoded again. The faces
file of a video is written last, so whatever a killed process left half done is redone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import fanout
from pipeline.faces import detect, extract, quality, sources
from warehouse import media, tables
from warehouse.home import Home
from warehouse.ids import sha256_of
from warehouse.schema import TABLES

Say = Callable[[str, int, int], None]
"""Called as ``say(file_name, done, total)`` when an item leaves a stage."""


@dataclass(frozen=True)
class FaceOptions:
    """What decides which faces come out of a video; part of each file's fingerprint."""

    sample_fps: float = 5.0
    detector: str = "centerface"
    gate: dict[str, float] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return sha256_of([json.dumps(asdict(self), sort_keys=True).encode()])[:16]


@dataclass(frozen=True)
class StageCount:
    """How many items a stage worked on now and how many it found done before."""

    done: int
    skipped: int


def register(
    home: Home,
    batch: str,
    *,
    engine: str = "local",
    workers: int | None = None,
    say: Say | None = None,
) -> StageCount:
    """Give every source of ``inbox/<batch>/`` its row in ``videos``.

    The same bytes twice are one video: the second file keeps a row of its own, dropped as a
    duplicate. Never raises for a bad file; raises SettingsError for a sidecar nobody can read.
    """
    listed = sources.list_sources(home.inbox / batch)
    done = {
        tables.metadata(home, "videos", part=part, batch=batch).get("stamp")
        for part in tables.parts(home, "videos", batch=batch)
    }
    pending = [source for source in listed if _stamp(source) not in done]
    results = fanout.fan_out(
        partial(sources.describe, batch=batch), pending, engine=engine, workers=workers
    )
    described = {}
    for number, (source, outcome) in enumerate(results, start=1):
        described[source] = outcome
        if say:
            say(source.file_name, number, len(pending))
    # Workers finish in any order; which of two copies is "the first" must not depend on it.
    for source in pending:
        row = _row_or_failure(source, described[source], batch)
        _write_video(home, row, stamp=_stamp(source))
    return StageCount(done=len(pending), skipped=len(listed) - len(pending))


def find_faces(
    home: Home,
    batch: str,
    options: FaceOptions,
    *,
    engine: str = "local",
    workers: int | None = None,
    say: Say | None = None,
) -> StageCount:
    """Fill ``faces`` and ``tracks`` for every readable video of a batch, each video on its own."""
    videos = [
        row
        for row in tables.read(home, "videos", batch=batch).iter_rows(named=True)
        if _footer(home, row).get("registered") == "kept"
    ]
    pending = [row for row in videos if not _has_faces(home, row, options)]
    work = partial(_extract_one, home=home, options=options)
    results = fanout.fan_out(work, pending, engine=engine, workers=workers)
    for number, (row, outcome) in enumerate(results, start=1):
        if isinstance(outcome, Exception):
            _rewrite_video(home, row, verdict="failed", reason=f"crashed: {outcome}")
        if say:
            say(Path(row["uri"]).name, number, len(pending))
    return StageCount(done=len(pending), skipped=len(videos) - len(pending))


def _extract_one(row: dict[str, Any], *, home: Home, options: FaceOptions) -> str:
    found = extract.extract(
        row["uri"],
        video_id=row["video_id"],
        batch=row["batch"],
        subject_id=row["subject_id"],
        detector=_detector(options.detector),
        gate=quality.Gate(**options.gate),
        fps=options.sample_fps,
        keep=partial(media.store, home),
    )
    place = {"part": row["video_id"], "batch": row["batch"]}
    tables.write(home, "tracks", found.tracks, **place)
    _rewrite_video(home, row, verdict=found.verdict, reason=found.reason)
    # Last, because this file is what says that the video is done.
    stamp = {"fingerprint": options.fingerprint}
    tables.write(home, "faces", found.faces, **place, metadata=stamp)
    return found.verdict


@lru_cache(maxsize=2)
def _detector(name: str) -> detect.Detector:
    # Below one half CenterFace sees faces in fur and leaves; the gate asks for more anyway.
    return detect.load(name, threshold=0.5)


def _row_or_failure(
    source: sources.Source, outcome: dict[str, Any] | Exception, batch: str
) -> dict[str, Any]:
    if not isinstance(outcome, Exception):
        return outcome
    missing = sources.describe(sources.Source(**{**asdict(source), "missing": True}), batch=batch)
    return {**missing, "reason": f"crashed: reading it ended the worker ({outcome})"}


def _write_video(home: Home, row: dict[str, Any], *, stamp: str) -> None:
    earlier = _kept_elsewhere(home, row)
    if row["verdict"] == "kept" and earlier:
        row = {**row, "verdict": "dropped", "reason": f"duplicate: the same bytes as {earlier}"}
    part = row["video_id"]
    if row["verdict"] != "kept":
        # Two copies of the same broken bytes are two sources, and each keeps its row.
        part = f"{part}.{sha256_of([row['uri'].encode()])[:8]}"
    frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
    footer = {"stamp": stamp, "registered": row["verdict"]}
    tables.write(home, "videos", frame, part=part, batch=row["batch"], metadata=footer)


def _kept_elsewhere(home: Home, row: dict[str, Any]) -> str | None:
    """Batch and file of the same bytes under another address, if they are there already."""
    same = (
        tables.scan(home, "videos")
        .filter(
            (pl.col("video_id") == row["video_id"])
            & ((pl.col("uri") != row["uri"]) | (pl.col("batch") != row["batch"]))
            & ~pl.col("reason").fill_null("").str.starts_with("duplicate")
        )
        .select("batch", "uri")
        .collect()
    )
    if same.is_empty():
        return None
    batch, uri = same.row(0)
    return f"{Path(uri).name} in batch {batch}"


def _rewrite_video(home: Home, row: dict[str, Any], *, verdict: str, reason: str | None) -> None:
    frame = pl.DataFrame(
        [{**row, "verdict": verdict, "reason": reason}], schema=TABLES["videos"].schema
    )
    footer = _footer(home, row)
    kept: dict[str, str] = {
        name: footer[name] for name in ("stamp", "registered") if name in footer
    }
    tables.write(home, "videos", frame, part=row["video_id"], batch=row["batch"], metadata=kept)


def _footer(home: Home, row: dict[str, Any]) -> dict[str, str]:
    if (row["reason"] or "").startswith("duplicate"):
        return {}
    return tables.metadata(home, "videos", part=row["video_id"], batch=row["batch"])


def _has_faces(home: Home, row: dict[str, Any], options: FaceOptions) -> bool:
    footer = tables.metadata(home, "faces", part=row["video_id"], batch=row["batch"])
    return footer.get("fingerprint") == options.fingerprint


def _stamp(source: sources.Source) -> str:
    """Changes when the file, its address or its sidecar row changes."""
    try:
        stat = os.stat(source.uri)
        on_disk = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        on_disk = []
    text = json.dumps([asdict(source), on_disk], sort_keys=True)
    return sha256_of([text.encode()])[:16]
