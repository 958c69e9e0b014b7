"""Register the files of a batch as videos, and find the faces in them.

Restart contract: a source whose size, time stamp and sidecar row are unchanged is not read
again. A video whose faces were found with the same options is not decoded again. The ``faces``
file of a video is written last, so a killed process leaves nothing that counts as done.

The footer of a video's file in the table ``videos`` holds ``stamp`` (state of the source),
``registered`` (the first verdict) and ``tried`` (searches for faces that ended their worker).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import execution
from pipeline.faces import detect, extract, labelled, quality
from pipeline.ingest import batches, manifest
from warehouse.errors import DiskError, RisoriusError, system_failure
from warehouse.ids import sha256_of
from warehouse.masking import mask
from warehouse.storage import locks, media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

REPLACED = "replaced"
TRIED = "tried"
MAX_CRASHES = 2
"""A worker can die of memory that its neighbours took, so one crash does not convict a video."""

_LIMIT_S = 300.0
_LIMIT_PER_S = 20.0
"""Seconds per video, plus seconds per second of its length. One core usually needs a tenth of
real time; the factor allows 240 samples a second of an 8K video."""

_RETRY = (
    "it is searched again when RISORIUS_VIDEO_LIMIT_S is higher, other settings of faces or the "
    "file change, or with RISORIUS_RETRY_FAILED=true"
)
_NO_RETRY = (
    "it is searched again when settings of faces or the file change, or with "
    "RISORIUS_RETRY_FAILED=true"
)

Progress = Callable[[str, int, int], None]
"""Called as ``progress(file_name, done, total)`` when an item leaves a stage."""


@dataclass(frozen=True)
class FaceOptions:
    """Options that decide which faces come out of a video."""

    sample_fps: float = 5.0
    detector: str = "centerface"
    gate: dict[str, float] = field(default_factory=dict)
    blur_bystanders: bool = True

    @property
    def fingerprint(self) -> str:
        """Hash of the options, kept in the footer of each ``faces`` file."""
        options = asdict(self) | {"measures": quality.VERSION}
        return sha256_of([json.dumps(options, sort_keys=True).encode()])[:16]


@dataclass(frozen=True)
class StageCount:
    """Number of items of a stage.

    Attributes:
        done: processed now.
        skipped: done by an earlier run.
        left: not tried again, because they ended their worker under the same conditions.
    """

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
    progress: Progress | None = None,
) -> StageCount:
    """Write one row of ``videos`` for every source of ``inbox/<batch>/``.

    Archives and addresses are unpacked and fetched first. Of two files with the same bytes the
    second is dropped as a duplicate. A file with other bytes than before is a new video, and the
    old one is dropped as replaced. A bad file ends as a failed row.

    Raises:
        SettingsError: a sidecar cannot be read.
    """
    folder = home.inbox / batch
    batches.materialize(folder, progress=progress)
    listed = manifest.list_sources(folder)
    done = {
        tables.metadata(home, "videos", part=part, batch=batch).get("stamp")
        for part in tables.parts(home, "videos", batch=batch)
    }
    pending = [source for source in listed if _stamp(source) not in done]
    earlier = _EarlierRows(home, batch)
    uris = {source.uri for source in listed}
    earlier.clear_failures(
        unchanged=uris - {source.uri for source in pending},
        resolved={
            uri
            for uri in earlier.rows.keys() - uris
            if manifest.is_resolved(folder, uri) or earlier.is_renamed(uri)
        },
    )
    results = execution.map_items(
        partial(manifest.describe, batch=batch),
        pending,
        engine=engine,
        workers=workers,
        needs=needs,
    )
    described = {}
    for number, (source, outcome) in enumerate(results, start=1):
        described[source] = outcome
        if progress:
            progress(source.file_name, number, len(pending))
    # In the order of the list: which of two copies is the first must not depend on the workers.
    freed, known = 0, _KnownVideos(home)
    for source in pending:
        row = _row_or_failure(source, described[source], batch)
        freed += earlier.retire(row)
        _write(home, earlier.with_search_result(row), stamp=_stamp(source), known=known)
    if freed:
        # Copies of a replaced video lost their original: register them on their own.
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
    progress: Progress | None = None,
) -> StageCount:
    """Fill ``faces`` and ``tracks`` for the readable videos of a batch.

    Args:
        limit_s: seconds per video, or a function of its row in ``videos`` such as
            ``time_limit``. A video that takes longer fails with ``timeout``.
        retry: also search videos that ended their worker under the same options and limit.
        hardware: decode on a device where a worker has one.
    """
    rows = tables.read(home, "videos", batch=batch).iter_rows(named=True)
    footers = [(row, _footer(home, row)) for row in rows]
    videos = [(row, footer) for row, footer in footers if footer.get("registered") == "kept"]

    def limit_of(row: dict[str, Any]) -> float | None:
        return limit_s(row) if callable(limit_s) else limit_s

    labels = labelled.read(home.inbox / batch / manifest.LISTING)
    wanted = [
        video for video in videos
        if not _has_faces(home, video[0], _fingerprint(options, labels.get(video[0]["uri"])))
    ]  # fmt: skip
    fingerprint = options.fingerprint
    pending = [
        {**row, "labels": labels.get(row["uri"])}
        for row, footer in wanted
        if retry or not is_hopeless(footer, fingerprint=fingerprint, limit_s=limit_of(row))
    ]
    work = partial(
        _extract_one,
        home=home,
        options=options,
        threads=_threads(len(pending), workers),
        hardware=hardware,
    )
    results = execution.map_items(
        work, pending, engine=engine, workers=workers, needs=needs, limit_s=limit_s
    )
    for number, (row, outcome) in enumerate(results, start=1):
        row.pop("labels")
        if isinstance(outcome, Exception):
            failure = None if isinstance(outcome, RisoriusError) else system_failure(outcome)
            if isinstance(failure, DiskError):
                raise failure from outcome  # no fault of the video, and the next would fail too
            tried = record_attempt(
                outcome,
                footer=_footer(home, row),
                fingerprint=fingerprint,
                limit_s=limit_of(row),
            )
            reason = failure_reason(outcome, tried=tried)
            _rewrite(home, row, verdict="failed", reason=reason, tried=tried)
        if progress:
            progress(Path(row["uri"]).name, number, len(pending))
    return StageCount(
        done=len(pending), skipped=len(videos) - len(wanted), left=len(wanted) - len(pending)
    )


def time_limit(row: dict[str, Any]) -> float:
    """Return the seconds after which a video counts as hung."""
    # A header may claim ten hours, or nothing. No video has less than 16 kbit per second.
    longest_s = (row["bytes"] or 0) / 2000
    claimed_s = row["duration_s"]
    length_s = longest_s if claimed_s is None else min(claimed_s, longest_s)
    return _LIMIT_S + _LIMIT_PER_S * length_s


def record_attempt(
    error: Exception, *, footer: Mapping[str, str], fingerprint: str, limit_s: float | None
) -> str | None:
    """Return the new ``tried`` of a failed search; None if its worker lived.

    Args:
        footer: of the video's file so far.
        fingerprint: of the options of the search.
        limit_s: seconds the search was given.
    """
    # Engines raise the base class when a worker ends; errors of the video itself are subclasses.
    if type(error) is not RisoriusError:
        return None
    timed_out = _is_timeout(error)
    crashes = int(_tried(footer, fingerprint).get("crashes") or 0) + (not timed_out)
    value = {
        "fingerprint": fingerprint,
        "limit_s": limit_s if timed_out else None,
        "crashes": crashes,
    }
    return json.dumps(value, sort_keys=True)


def is_hopeless(footer: Mapping[str, str], *, fingerprint: str, limit_s: float | None) -> bool:
    """Return whether these options would only repeat an earlier failure."""
    tried = _tried(footer, fingerprint)
    if int(tried.get("crashes") or 0) >= MAX_CRASHES:
        return True
    allowed = tried.get("limit_s")
    return allowed is not None and limit_s is not None and limit_s <= float(allowed)


def failure_reason(error: Exception, *, tried: str | None) -> str:
    """Return why a video failed, and when it is searched again."""
    if isinstance(error, RisoriusError) and _is_timeout(error):
        return f"{error.got}; {error.hint}; {_RETRY}"
    if tried is None:
        return mask(f"crashed: {error}")
    last = json.loads(tried)["crashes"] >= MAX_CRASHES
    return mask(f"crashed: {error}; {_NO_RETRY if last else 'the next run tries it once more'}")


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, RisoriusError) and error.got.startswith("timeout")


def _tried(footer: Mapping[str, str], fingerprint: str) -> dict[str, float | str | None]:
    tried = json.loads(footer.get(TRIED) or "{}")
    return tried if tried.get("fingerprint") == fingerprint else {}


def _threads(videos: int, workers: int | None) -> int:
    """Return the threads per inference that use all cores.

    Boxes are identical to the bit for any number of threads (measured).
    """
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
    # A worker outlives its killed parent for a moment, in which an erasure may begin.
    with locks.writing(home.root, join=True):
        if tables.read_part(home, "videos", part=row["video_id"], batch=row["batch"]).is_empty():
            return "erased"
        return _extract_and_write(
            row, home=home, options=options, threads=threads, hardware=hardware
        )


def _extract_and_write(
    row: dict[str, Any], *, home: Home, options: FaceOptions, threads: int, hardware: bool
) -> str:
    labels = row.get("labels")
    row = {name: value for name, value in row.items() if name != "labels"}
    found = extract.extract(
        row["uri"],
        video_id=row["video_id"],
        batch=row["batch"],
        subject_id=row["subject_id"],
        detector=_detector(options.detector, threads),
        gate=quality.Gate(**options.gate),
        fps=options.sample_fps,
        save=partial(media.store, home),
        blur_bystanders=options.blur_bystanders,
        hardware=hardware,
        labels=labels,
    )
    place = {"part": row["video_id"], "batch": row["batch"]}
    tables.write(home, "tracks", found.tracks, **place)
    duration_s = row["duration_s"]
    if duration_s is None or duration_s < found.last_s:
        duration_s = found.duration_s
    measured = {**row, "duration_s": duration_s}
    _rewrite(home, measured, verdict=found.verdict, reason=found.reason)
    # Last: this file marks the video as done.
    stamp = {"fingerprint": _fingerprint(options, labels)}
    tables.write(home, "faces", found.faces, **place, metadata=stamp)
    return found.verdict


@lru_cache(maxsize=2)
def _detector(name: str, threads: int) -> detect.Detector:
    # Below 0.5 CenterFace finds faces in fur and leaves; the gate asks for more anyway.
    return detect.load(name, threshold=0.5, threads=threads)


def _fingerprint(options: FaceOptions, labels: labelled.Labelled | None) -> str:
    return options.fingerprint if labels is None else labels.digest(options.fingerprint)


def _has_faces(home: Home, row: dict[str, Any], fingerprint: str) -> bool:
    footer = tables.metadata(home, "faces", part=row["video_id"], batch=row["batch"])
    return footer.get("fingerprint") == fingerprint


class _EarlierRows:
    """Rows of ``videos`` of a batch from its last registration, by address."""

    def __init__(self, home: Home, batch: str) -> None:
        self.home, self.batch = home, batch
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for row in tables.read(home, "videos", batch=batch).iter_rows(named=True):
            self.rows.setdefault(row["uri"], []).append(row)

    def clear_failures(self, *, unchanged: set[str], resolved: set[str]) -> None:
        """Remove rows that report a missing file which is available again.

        Args:
            unchanged: addresses whose file is the same as last time.
            resolved: addresses that failed as a whole and are no longer listed.
        """
        for uri in unchanged | resolved:
            rows = self.rows.get(uri, [])
            if uri in resolved or any(row["sha256"] for row in rows):
                for row in rows:
                    if row["sha256"] is None and row["verdict"] == "failed":
                        tables.remove(
                            self.home, "videos", part=manifest.part_of(row), batch=self.batch
                        )

    def is_renamed(self, uri: str) -> bool:
        """Return whether only the name of a file was at fault, or a link."""
        codes = {(row["reason"] or "").split(":")[0] for row in self.rows[uri]}
        return codes <= {"unreadable_name", "linked_folder"}

    def retire(self, row: dict[str, Any]) -> int:
        """Drop the earlier video of the same address, if the bytes differ.

        The old row and its faces stay as dropped, because votes may refer to them and an erasure
        must find them. A missing file retires nothing. Rows of duplicates of the old video are
        removed, so that the next registration of their batch reads those files again.

        Args:
            row: new row of ``videos``, not written yet.

        Returns:
            Number of rows of duplicates removed from this batch.
        """
        freed = 0
        for old in self.rows.get(row["uri"], []):
            retired = (old["reason"] or "").startswith(f"{REPLACED}:")
            same = old["video_id"] == row["video_id"]
            if row["sha256"] is None or (same and not retired) or (retired and not same):
                continue
            tables.remove(self.home, "videos", part=manifest.part_of(old), batch=self.batch)
            if same or old["sha256"] is None:
                continue
            if old["verdict"] != "dropped" or not (old["reason"] or "").startswith("duplicate"):
                tables.remove(self.home, "videos", part=old["video_id"], batch=self.batch)
                _drop_replaced(self.home, old, row["video_id"])
                freed += _remove_duplicates(self.home, old)
        return freed

    def with_search_result(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add ``searched``, what a search for faces found that is still valid."""
        place = {"part": row["video_id"], "batch": self.batch}
        if row["verdict"] == "kept" and "fingerprint" in tables.metadata(
            self.home, "faces", **place
        ):
            for old in self.rows.get(row["uri"], []):
                if old["video_id"] == row["video_id"]:
                    return {
                        **row,
                        "searched": {k: old[k] for k in ("verdict", "reason", "duration_s")},
                    }
        return row


def _drop_replaced(home: Home, old: dict[str, Any], successor: str) -> None:
    reason = f"{REPLACED}: the file holds other bytes now, {successor}"
    for name in ("faces", "clips", "segments"):
        rows = tables.read(home, name, batch=old["batch"]).filter(
            pl.col("video_id") == old["video_id"]
        )
        if rows.height:
            dropped = rows.with_columns(verdict=pl.lit("dropped"), reason=pl.lit(REPLACED))
            # Without its fingerprint, so that the same bytes are searched if they return.
            tables.write(home, name, dropped, part=old["video_id"], batch=old["batch"])
    frame = pl.DataFrame(
        [{**old, "verdict": "dropped", "reason": reason}], schema=TABLES["videos"].schema
    )
    tables.write(home, "videos", frame, part=manifest.part_of(old), batch=old["batch"])


def _remove_duplicates(home: Home, old: dict[str, Any]) -> int:
    copies = tables.read(home, "videos").filter(
        (pl.col("video_id") == old["video_id"])
        & pl.col("reason").fill_null("").str.starts_with("duplicate")
    )
    for copy in copies.iter_rows(named=True):
        tables.remove(home, "videos", part=manifest.part_of(copy), batch=copy["batch"])
    return copies.filter(pl.col("batch") == old["batch"]).height


class _KnownVideos:
    """Files of the table ``videos`` by video id, to find duplicates.

    Listed once and updated by ``add``: one listing per source made the thousandth source cost
    ten times as much as the hundredth.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.places: dict[str, set[tuple[str, str]]] = {}
        for path in tables.paths(home, "videos"):
            self.add(path.parent.name.removeprefix("batch="), path.stem)

    def add(self, batch: str, part: str) -> None:
        self.places.setdefault(part.partition(".")[0], set()).add((batch, part))

    def original_of(self, row: dict[str, Any]) -> str | None:
        """Return "file in batch" of the same bytes at another address.

        Where the same video was retired, what was derived from it there is removed: ``row`` stands
        for these bytes now, and its faces must not occur twice.
        """
        original = None
        for batch, part in sorted(self.places.get(row["video_id"], ())):
            for other in tables.read_part(self.home, "videos", part=part, batch=batch).iter_rows(
                named=True
            ):
                reason = other["reason"] or ""
                same_place = other["uri"] == row["uri"] and other["batch"] == row["batch"]
                if same_place or reason.startswith("duplicate"):
                    continue
                if reason.startswith(f"{REPLACED}:"):
                    if batch != row["batch"]:
                        for name in ("faces", "tracks", "ratings", "clips", "segments"):
                            tables.remove(self.home, name, part=row["video_id"], batch=batch)
                else:
                    original = original or f"{Path(other['uri']).name} in batch {batch}"
        return original


def _row_or_failure(
    source: manifest.Source, outcome: dict[str, Any] | Exception, batch: str
) -> dict[str, Any]:
    if not isinstance(outcome, Exception):
        return outcome
    missing = manifest.describe(manifest.Source(**{**asdict(source), "missing": True}), batch=batch)
    return {**missing, "reason": f"crashed: reading it ended the worker ({outcome})"}


def _write(home: Home, row: dict[str, Any], *, stamp: str, known: _KnownVideos) -> None:
    """Write the row of a source; drop it if another file has the same bytes."""
    original = known.original_of(row)
    searched = row.pop("searched", None)
    if row["verdict"] == "kept" and original:
        row = {**row, "verdict": "dropped", "reason": f"duplicate: the same bytes as {original}"}
        searched = None
    # Two copies of the same unreadable bytes are two sources, and each keeps its row.
    part = row["video_id"] if row["verdict"] == "kept" else manifest.part_of(row)
    footer = {"stamp": stamp, "registered": row["verdict"]}
    frame = pl.DataFrame([row | (searched or {})], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part=part, batch=row["batch"], metadata=footer)
    known.add(row["batch"], part)


def _rewrite(
    home: Home, row: dict[str, Any], *, verdict: str, reason: str | None, tried: str | None = None
) -> None:
    """Write another verdict of a video; keep the footer of its source."""
    frame = pl.DataFrame(
        [{**row, "verdict": verdict, "reason": reason}], schema=TABLES["videos"].schema
    )
    before = _footer(home, row)
    footer: dict[str, str] = {
        name: before[name] for name in ("stamp", "registered") if name in before
    }
    if tried is not None:
        footer[TRIED] = tried
    tables.write(home, "videos", frame, part=row["video_id"], batch=row["batch"], metadata=footer)


def _footer(home: Home, row: dict[str, Any]) -> dict[str, str]:
    """Return the footer of a video; empty for duplicates and replaced ones."""
    if (row["reason"] or "").startswith(("duplicate", f"{REPLACED}:")):
        return {}
    return tables.metadata(home, "videos", part=row["video_id"], batch=row["batch"])


def _stamp(source: manifest.Source) -> str:
    """Hash the address, size, time and declared facts of a source."""
    try:
        stat = os.stat(source.uri)
        on_disk = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        on_disk = []
    # Facts are read again at every ingest (``facts.write_facts``) and change no verdict.
    facts = {name: value for name, value in asdict(source).items() if name != "facts"}
    text = json.dumps([facts, on_disk], sort_keys=True)
    return sha256_of([text.encode()])[:16]
