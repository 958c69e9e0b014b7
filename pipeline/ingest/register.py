"""A batch through the two first stages: its files become videos, its videos become faces.

Restart contract: a source whose size, time stamp and sidecar row are unchanged is not read
again; a video whose faces were found with the same settings is not decoded again. The faces
file of a video is written last, so whatever a killed process left half done is redone.
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
from pipeline.faces import detect, extract, quality
from pipeline.ingest import batches, manifest
from warehouse.errors import RisoriusError
from warehouse.ids import sha256_of
from warehouse.masking import mask
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def row_or_failure(
    source: manifest.Source, outcome: dict[str, Any] | Exception, batch: str
) -> dict[str, Any]:
    """The row a worker made of a source, or one that says what ended it."""
    if not isinstance(outcome, Exception):
        return outcome
    missing = manifest.describe(manifest.Source(**{**asdict(source), "missing": True}), batch=batch)
    return {**missing, "reason": f"crashed: reading it ended the worker ({outcome})"}


def write(home: Home, row: dict[str, Any], *, stamp: str, copies: Copies) -> None:
    """File what was read of a source; a copy of bytes that are known is dropped as one.

    Args:
        stamp: as ``stamp`` gives it, kept in the footer beside the first verdict.
    """
    earlier = copies.kept_elsewhere(row)
    searched = row.pop("searched", None)
    if row["verdict"] == "kept" and earlier:
        row = {**row, "verdict": "dropped", "reason": f"duplicate: the same bytes as {earlier}"}
        searched = None
    part = row["video_id"]
    if row["verdict"] != "kept":
        # Two copies of the same broken bytes are two sources, and each keeps its row.
        part = f"{part}.{sha256_of([row['uri'].encode()])[:8]}"
    footer = {"stamp": stamp, "registered": row["verdict"]}
    row |= searched or {}
    frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part=part, batch=row["batch"], metadata=footer)
    copies.note(row["batch"], part)


def rewrite(
    home: Home,
    row: dict[str, Any],
    *,
    verdict: str,
    reason: str | None,
    tried: str | None = None,
) -> None:
    """File another verdict; what the footer says of the source stays.

    Args:
        tried: what was tried in vain, as ``register.note`` gives it.
    """
    frame = pl.DataFrame(
        [{**row, "verdict": verdict, "reason": reason}], schema=TABLES["videos"].schema
    )
    before = footer(home, row)
    kept: dict[str, str] = {
        name: before[name] for name in ("stamp", "registered") if name in before
    }
    if tried is not None:
        kept[KEY] = tried
    tables.write(home, "videos", frame, part=row["video_id"], batch=row["batch"], metadata=kept)


def footer(home: Home, row: dict[str, Any]) -> dict[str, str]:
    """What the file of a video's row says in its footer; nothing for copies and the retired."""
    if (row["reason"] or "").startswith(("duplicate", f"{REASON}:")):
        return {}
    return tables.metadata(home, "videos", part=row["video_id"], batch=row["batch"])


def stamp(source: manifest.Source) -> str:
    """Changes when the file, its address or its sidecar row changes."""
    try:
        stat = os.stat(source.uri)
        on_disk = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        on_disk = []
    text = json.dumps([asdict(source), on_disk], sort_keys=True)
    return sha256_of([text.encode()])[:16]


class Copies:
    """Which files of the table ``videos`` speak of which bytes.

    Listed once and kept up to date by ``note``: a listing per source made the thousandth cost
    ten times the hundredth.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.places: dict[str, set[tuple[str, str]]] = {}
        for path in tables.paths(home, "videos"):
            self.note(path.parent.name.removeprefix("batch="), path.stem)

    def note(self, batch: str, part: str) -> None:
        """A row was written there; its file is named after its video."""
        self.places.setdefault(part.partition(".")[0], set()).add((batch, part))

    def kept_elsewhere(self, row: dict[str, Any]) -> str | None:
        """File and batch of the same bytes under another address, if they are there already.

        What is kept of a retired video elsewhere is removed: these bytes stand for it now.
        """
        found = None
        for batch, part in sorted(self.places.get(row["video_id"], ())):
            for other in tables.read_part(self.home, "videos", part=part, batch=batch).iter_rows(
                named=True
            ):
                reason = other["reason"] or ""
                same_place = other["uri"] == row["uri"] and other["batch"] == row["batch"]
                if same_place or reason.startswith("duplicate"):
                    continue
                if reason.startswith(f"{REASON}:"):
                    hand_over(self.home, row["video_id"], batch=batch, to=row["batch"])
                else:
                    found = found or f"{Path(other['uri']).name} in batch {batch}"
        return found


REASON = "replaced"

_DERIVED = ("faces", "tracks", "ratings", "clips")


@dataclass(frozen=True)
class Before:
    """What the addresses of a batch held when it was registered last."""

    home: Home
    batch: str
    rows: dict[str, list[dict[str, Any]]]

    @classmethod
    def read(cls, home: Home, batch: str) -> Before:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in tables.read(home, "videos", batch=batch).iter_rows(named=True):
            found.setdefault(row["uri"], []).append(row)
        return cls(home, batch, found)

    def clear(self, *, unchanged: set[str], settled: set[str]) -> None:
        """Remove what was said of addresses while their file was away, now that it is back.

        Args:
            unchanged: addresses whose file is the one of the last time.
            settled: addresses that failed as a whole and are not listed any more.
        """
        for uri in unchanged | settled:
            rows = self.rows.get(uri, [])
            if uri in settled or any(row["sha256"] for row in rows):
                for row in rows:
                    if _says_nothing(row):
                        tables.remove(self.home, "videos", part=_part(row), batch=self.batch)

    def retire(self, row: dict[str, Any]) -> int:
        """Drop what the address of ``row`` held before, if that were other bytes.

        The old row stays, dropped with the reason, and so do its faces: people may have voted on
        them, and somebody who leaves must find them. Nothing uses dropped faces. A file that is
        away retires nothing. Copies that were dropped as duplicates of the old video are
        forgotten, so that the next registration of their batch reads them anew.

        Args:
            row: of the table ``videos``, described anew and not written yet.

        Returns:
            how many rows of copies were forgotten in this batch.
        """
        freed = 0
        for old in self.rows.get(row["uri"], []):
            retired = (old["reason"] or "").startswith(f"{REASON}:")
            same = old["video_id"] == row["video_id"]
            if row["sha256"] is None or (same and not retired) or (retired and not same):
                continue
            tables.remove(self.home, "videos", part=_part(old), batch=self.batch)
            if same or old["sha256"] is None:
                continue
            if old["verdict"] != "dropped" or not (old["reason"] or "").startswith("duplicate"):
                tables.remove(self.home, "videos", part=old["video_id"], batch=self.batch)
                _drop(self.home, old, row["video_id"])
                freed += _free(self.home, old)
        return freed

    def as_it_was_found(self, row: dict[str, Any]) -> dict[str, Any]:
        """``row`` with ``searched``: what the search for faces said of it, where that stands."""
        place = {"part": row["video_id"], "batch": self.batch}
        if row["verdict"] == "kept" and "fingerprint" in tables.metadata(
            self.home, "faces", **place
        ):
            for old in self.rows.get(row["uri"], []):
                if old["video_id"] == row["video_id"]:
                    told = {name: old[name] for name in ("verdict", "reason")}
                    return {**row, "searched": told}
        return row


def hand_over(home: Home, video_id: str, *, batch: str, to: str) -> None:
    """Remove what is kept of a retired video where it was: its bytes are there under another
    address, in the batch ``to``, and its faces must not stand twice."""
    for name in _DERIVED if batch != to else ():
        tables.remove(home, name, part=video_id, batch=batch)


def _says_nothing(row: dict[str, Any]) -> bool:
    return row["sha256"] is None and row["verdict"] == "failed"


def _drop(home: Home, old: dict[str, Any], successor: str) -> None:
    reason = f"{REASON}: the file holds other bytes now, {successor}"
    gone = {**old, "verdict": "dropped", "reason": reason}
    for name in ("faces", "clips"):
        rows = tables.read(home, name, batch=old["batch"]).filter(
            pl.col("video_id") == old["video_id"]
        )
        if rows.height:
            dropped = rows.with_columns(verdict=pl.lit("dropped"), reason=pl.lit(REASON))
            # Without its fingerprint, so that the same bytes, come back, are searched again.
            tables.write(home, name, dropped, part=old["video_id"], batch=old["batch"])
    frame = pl.DataFrame([gone], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part=_part(old), batch=old["batch"])


def _free(home: Home, old: dict[str, Any]) -> int:
    """Forget the rows of copies of a retired video; how many were in its own batch."""
    copies = tables.read(home, "videos").filter(
        (pl.col("video_id") == old["video_id"])
        & pl.col("reason").fill_null("").str.starts_with("duplicate")
    )
    for copy in copies.iter_rows(named=True):
        tables.remove(home, "videos", part=_part(copy), batch=copy["batch"])
    return copies.filter(pl.col("batch") == old["batch"]).height


def _part(row: dict[str, Any]) -> str:
    return f"{row['video_id']}.{sha256_of([row['uri'].encode()])[:8]}"


KEY = "tried"
"""Under which the footer of a video's file says so."""

MOST_CRASHES = 2
"""A worker may be ended for what its neighbours do to memory: once is no proof against a video."""

_AGAIN = (
    "it is searched again when RISORIUS_VIDEO_LIMIT_S is higher, other settings of faces or the "
    "file change, or with RISORIUS_RETRY_FAILED=true"
)
_ONCE_MORE = "the next run tries it once more"
_NO_MORE = (
    "it is searched again when settings of faces or the file change, or with "
    "RISORIUS_RETRY_FAILED=true"
)


def ended_its_worker(error: Exception) -> bool:
    """Whether the worker went, by the clock or by itself; other errors were only raised."""
    # Engines say so with the base class; what a video raises by itself is one of its children.
    return type(error) is RisoriusError


def note(
    error: Exception, *, footer: Mapping[str, str], fingerprint: str, limit_s: float | None
) -> str | None:
    """What to keep under ``KEY``; None for an error that says nothing against the video.

    Args:
        footer: of the video's file so far.
        fingerprint: of the options it was searched with.
        limit_s: seconds it was allowed.
    """
    if not ended_its_worker(error):
        return None
    before = _tried(footer, fingerprint)
    late = _is_timeout(error)
    crashes = int(before.get("crashes") or 0) + (not late)
    told = {"fingerprint": fingerprint, "limit_s": limit_s if late else None, "crashes": crashes}
    return json.dumps(told, sort_keys=True)


def is_spared(footer: Mapping[str, str], *, fingerprint: str, limit_s: float | None) -> bool:
    """Whether trying again with these options and this limit would be trying the same."""
    before = _tried(footer, fingerprint)
    if int(before.get("crashes") or 0) >= MOST_CRASHES:
        return True
    allowed = before.get("limit_s")
    return allowed is not None and limit_s is not None and limit_s <= float(allowed)


def reason(error: Exception, *, tried: str | None) -> str:
    """Why a video has failed, and what makes a run search it again."""
    if isinstance(error, RisoriusError) and _is_timeout(error):
        return f"{error.got}; {error.hint}; {_AGAIN}"
    if tried is None:
        return mask(f"crashed: {error}")
    again = _NO_MORE if json.loads(tried)["crashes"] >= MOST_CRASHES else _ONCE_MORE
    return mask(f"crashed: {error}; {again}")


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, RisoriusError) and error.got.startswith("timeout")


def _tried(footer: Mapping[str, str], fingerprint: str) -> dict[str, float | str | None]:
    told = json.loads(footer.get(KEY) or "{}")
    return told if told.get("fingerprint") == fingerprint else {}


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
        told = asdict(self) | {"measures": quality.VERSION}
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
    batches.bring(home.inbox / batch, say=say)
    listed = manifest.list_sources(home.inbox / batch)
    done = {
        tables.metadata(home, "videos", part=part, batch=batch).get("stamp")
        for part in tables.parts(home, "videos", batch=batch)
    }
    pending = [source for source in listed if stamp(source) not in done]
    before = Before.read(home, batch)
    before.clear(
        unchanged={source.uri for source in listed} - {source.uri for source in pending},
        settled={
            uri
            for uri in before.rows.keys() - {source.uri for source in listed}
            if manifest.settled(home.inbox / batch, uri)
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
        if say:
            say(source.file_name, number, len(pending))
    # Workers finish in any order; which of two copies is "the first" must not depend on it.
    freed, copies = 0, Copies(home)
    for source in pending:
        row = row_or_failure(source, described[source], batch)
        freed += before.retire(row)
        write(home, before.as_it_was_found(row), stamp=stamp(source), copies=copies)
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
    told = [(row, footer(home, row)) for row in rows]
    videos = [(row, footer) for row, footer in told if footer.get("registered") == "kept"]

    def limit_of(row: dict[str, Any]) -> float | None:
        return limit_s(row) if callable(limit_s) else limit_s

    wanted = [one for one in videos if not _has_faces(home, one[0], options)]
    mark = options.fingerprint
    pending = [
        row
        for row, footer in wanted
        if retry or not is_spared(footer, fingerprint=mark, limit_s=limit_of(row))
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
        if isinstance(outcome, Exception):
            tried = note(
                outcome,
                footer=footer(home, row),
                fingerprint=mark,
                limit_s=limit_of(row),
            )
            why = reason(outcome, tried=tried)
            rewrite(home, row, verdict="failed", reason=why, tried=tried)
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
        save=partial(media.store, home),
        blur_bystanders=options.blur_bystanders,
        hardware=hardware,
    )
    place = {"part": row["video_id"], "batch": row["batch"]}
    tables.write(home, "tracks", found.tracks, **place)
    rewrite(home, row, verdict=found.verdict, reason=found.reason)
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
