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

from pipeline import execution
from pipeline.faces import detect, extract, quality
from pipeline.ingest import attempts, changed_files, manifest, materialize, video_rows
from pipeline.ingest.deduplicate import Copies
from warehouse.ids import sha256_of
from warehouse.storage import media, tables
from warehouse.storage.home import Home

_PATIENCE_S = 300.0
_PATIENCE_PER_S = 20.0
"""A video may take so long, and so many times its own length: a tenth of real time on one core
is usual, and 240 samples a second of an 8K video are not to be cut off either."""

Say = Callable[[str, int, int], None]
"""Called as ``say(file_name, done, total)`` when an item leaves a stage."""


@dataclass(frozen=True)
class FaceOptions:
    """What decides which faces come out of a video; part of each file's fingerprint."""

    sample_fps: float = 5.0
    detector: str = "centerface"
    gate: dict[str, float] = field(default_factory=dict)
    blur_bystanders: bool = True

    @property
    def fingerprint(self) -> str:
        told = asdict(self) | {"measures": quality.MEASURES}
        return sha256_of([json.dumps(told, sort_keys=True).encode()])[:16]


@dataclass(frozen=True)
class StageCount:
    """How many items a stage worked on now, how many it found done before, and how many it left
    because they ended their worker under the same conditions."""

    done: int
    skipped: int
    left: int = 0


def register(
    home: Home,
    batch: str,
    *,
    engine: str = "local",
    workers: int | None = None,
    needs: execution.Needs | None = None,
    say: Say | None = None,
) -> StageCount:
    """Give every source of ``inbox/<batch>/`` its row in ``videos``; fetch and unpack it first.

    The same bytes twice are one video: the second file keeps a row of its own, dropped as a
    duplicate. A file that holds other bytes than before is a new video, and the old one is
    retired. Never raises for a bad file; raises SettingsError for a sidecar nobody can read.
    """
    materialize.bring(home.inbox / batch, say=say)
    listed = manifest.list_sources(home.inbox / batch)
    done = {
        tables.metadata(home, "videos", part=part, batch=batch).get("stamp")
        for part in tables.parts(home, "videos", batch=batch)
    }
    pending = [source for source in listed if video_rows.stamp(source) not in done]
    before = changed_files.Before.read(home, batch)
    before.clear(
        unchanged={source.uri for source in listed} - {source.uri for source in pending},
        settled={
            uri
            for uri in before.rows.keys() - {source.uri for source in listed}
            if manifest.settled(home.inbox / batch, uri)
        },
    )
    results = execution.fan_out(
        partial(manifest.describe, batch=batch),
        pending,
        engine=engine,
        workers=workers,
        needs=needs,
    )
    described = {}
    for number, (source, outcome) in enumerate(results, start=1):
        described[source] = outcome
        if say:
            say(source.file_name, number, len(pending))
    # Workers finish in any order; which of two copies is "the first" must not depend on it.
    freed, copies = 0, Copies(home)
    for source in pending:
        row = video_rows.row_or_failure(source, described[source], batch)
        freed += before.retire(row)
        video_rows.write(
            home, before.as_it_was_found(row), stamp=video_rows.stamp(source), copies=copies
        )
    if freed:
        # Copies of what was retired stand for themselves now.
        register(home, batch, engine=engine, workers=workers, needs=needs)
    return StageCount(done=len(pending), skipped=len(listed) - len(pending))


def find_faces(
    home: Home,
    batch: str,
    options: FaceOptions,
    *,
    engine: str = "local",
    workers: int | None = None,
    needs: execution.Needs | None = None,
    limit_s: float | Callable[[dict[str, Any]], float] | None = None,
    retry: bool = False,
    hardware: bool = False,
    say: Say | None = None,
) -> StageCount:
    """Fill ``faces`` and ``tracks`` for every readable video of a batch, each video on its own.

    Args:
        limit_s: seconds a video may take, or a function of its row in ``videos`` that says so,
            such as ``time_limit``; a video that takes longer has failed, with ``timeout``.
        retry: search again what ended its worker under the same options and limit.
        hardware: decode on a device, where a worker has one.
    """
    rows = tables.read(home, "videos", batch=batch).iter_rows(named=True)
    told = [(row, video_rows.footer(home, row)) for row in rows]
    videos = [(row, footer) for row, footer in told if footer.get("registered") == "kept"]

    def limit_of(row: dict[str, Any]) -> float | None:
        return limit_s(row) if callable(limit_s) else limit_s

    wanted = [one for one in videos if not _has_faces(home, one[0], options)]
    mark = options.fingerprint
    pending = [
        row
        for row, footer in wanted
        if retry or not attempts.is_spared(footer, fingerprint=mark, limit_s=limit_of(row))
    ]
    work = partial(
        _extract_one,
        home=home,
        options=options,
        threads=_threads(len(pending), workers),
        hardware=hardware,
    )
    results = execution.fan_out(
        work, pending, engine=engine, workers=workers, needs=needs, limit_s=limit_s
    )
    for number, (row, outcome) in enumerate(results, start=1):
        if isinstance(outcome, Exception):
            tried = attempts.note(
                outcome,
                footer=video_rows.footer(home, row),
                fingerprint=mark,
                limit_s=limit_of(row),
            )
            why = attempts.reason(outcome, tried=tried)
            video_rows.rewrite(home, row, verdict="failed", reason=why, tried=tried)
        if say:
            say(Path(row["uri"]).name, number, len(pending))
    return StageCount(
        done=len(pending), skipped=len(videos) - len(wanted), left=len(wanted) - len(pending)
    )


def time_limit(row: dict[str, Any]) -> float:
    """Seconds the video of a row in ``videos`` may take before it counts as hung."""
    # A header may claim ten hours; no video is smaller than 16 kbit for each second of it.
    length_s = min(row["duration_s"] or 0.0, (row["bytes"] or 0) / 2000)
    return _PATIENCE_S + _PATIENCE_PER_S * length_s


def _threads(videos: int, workers: int | None) -> int:
    """Threads inside one inference, so that few videos use every core and many do not wait for
    each other. Measured: the boxes are the same to the bit, however many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    return max(1, cores // max(1, min(workers or cores, videos)))


def _extract_one(
    row: dict[str, Any],
    *,
    home: Home,
    options: FaceOptions,
    threads: int = 1,
    hardware: bool = False,
) -> str:
    found = extract.extract(
        row["uri"],
        video_id=row["video_id"],
        batch=row["batch"],
        subject_id=row["subject_id"],
        detector=_detector(options.detector, threads),
        gate=quality.Gate(**options.gate),
        fps=options.sample_fps,
        keep=partial(media.store, home),
        blur_bystanders=options.blur_bystanders,
        hardware=hardware,
    )
    place = {"part": row["video_id"], "batch": row["batch"]}
    tables.write(home, "tracks", found.tracks, **place)
    video_rows.rewrite(home, row, verdict=found.verdict, reason=found.reason)
    # Last, because this file is what says that the video is done.
    stamp = {"fingerprint": options.fingerprint}
    tables.write(home, "faces", found.faces, **place, metadata=stamp)
    return found.verdict


@lru_cache(maxsize=2)
def _detector(name: str, threads: int) -> detect.Detector:
    # Below one half CenterFace sees faces in fur and leaves; the gate asks for more anyway.
    return detect.load(name, threshold=0.5, threads=threads)


def _has_faces(home: Home, row: dict[str, Any], options: FaceOptions) -> bool:
    footer = tables.metadata(home, "faces", part=row["video_id"], batch=row["batch"])
    return footer.get("fingerprint") == options.fingerprint
