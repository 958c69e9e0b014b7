"""Erase a data subject or a video from a home and its releases."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import MediaError, SettingsError
from warehouse.ids import fold_name, sha256_of
from warehouse.privacy import copies, data_subject, inbox, tombstones, verify
from warehouse.privacy.data_subject import DataSubject
from warehouse.privacy.verify import Verification
from warehouse.storage import atomic, locks, media, mirror
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

JOURNAL = "forgetting"
_DAY_S = 86_400.0
_OF_ALL = ("sound", "words", "video", "transcript", "media")
"""Columns that hold what is seen or heard of everyone in a video."""

Step = Callable[[DataSubject], Mapping[str, Any]]
"""Erase a data subject from an outside system; return counts and notes. Must be repeatable."""


@dataclass(frozen=True)
class ErasureReport:
    """Result of an erasure.

    Attributes:
        what: name of the tombstone: kind and a keyed hash, no personal data.
        removed: counts of deleted items by place.
        releases: ``<name> <version>`` to its replacement; None if it has none.
        left: ``<where>: <why>`` for data that shows the subject, or may, and is not deleted.
        verification: search of the home after the erasure, with files that stay in the inbox.
        notes: messages of outside systems.
        hubs: what was done on each Hub.
    """

    what: str
    removed: dict[str, int]
    releases: dict[str, str | None]
    left: list[str]
    verification: Verification
    notes: dict[str, Any] = field(default_factory=dict)
    hubs: dict[str, str] = field(default_factory=dict)


def plan(home: Home, kind: str, name: str) -> DataSubject:
    """Return what would be erased, with the plan of an interrupted erasure.

    What was written since the interruption is found as well.

    Raises:
        SettingsError: the id is unknown, or was erased already.
    """
    journal = _journal_path(home, kind, name)
    earlier = _read_plan(journal) if journal.exists() else None
    try:
        found = data_subject.find(home, kind, name)
    except SettingsError as error:
        if earlier is not None:
            return earlier
        if when := tombstones.erased_at(home, kind, name):
            raise SettingsError(
                f"The {kind} was erased already",
                got=f"{tombstones.name_of(home, kind, name)}, forgotten on {when:%Y-%m-%d}",
                hint="nothing remains to be done",
            ) from error
        raise
    return earlier.merged(found) if earlier is not None else found


def pending(home: Home) -> list[tuple[str, str]]:
    """Return kind and name of interrupted erasures."""
    folder = home.root / JOURNAL
    plans = [_read_plan(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return [(subject.kind, subject.name) for subject in plans]


def forget(
    home: Home,
    kind: str,
    name: str,
    *,
    why: str = "asked to",
    before: Sequence[Step] = (),
    after: Sequence[Step] = (),
    waiting: locks.Waiting | None = None,
) -> ErasureReport:
    """Erase a data subject, or finish an interrupted erasure; then verify it.

    It waits until no other process of this machine writes to the home, and no other starts until
    it is done. Releases that contain the subject are replaced by versions without it, see
    ``releases.redact``. A journal in the home keeps the plan until nothing of it is found any
    more. Rows of ``tombstones`` record what was erased, when, why, and in which releases it was,
    and ingest refuses its files.

    Args:
        why: stored in the tombstone; must not name the person.
        before: outside systems to erase first (labelling tasks). If one fails, nothing has been
            changed.
        after: outside systems that may hold copies of the tables.
        waiting: called with what is waited for.

    Raises:
        SettingsError: the id is unknown, or ``why`` names the person.
        ReleaseError, StudioError, TableError: a step failed; run the same command again.
    """
    from warehouse.releases import redact

    if kind == "subject" and fold_name(name) in fold_name(why).split():
        raise SettingsError(
            "The reason names the subject", got="it would stay in the tombstone", hint="rephrase it"
        )
    with locks.erasing(home.root, waiting=waiting):
        mirror.sync(home.root, force=True)
        subject = plan(home, kind, name)
        journal = _Journal.open(_journal_path(home, kind, name), subject)
        for step in before:
            journal.add(step(subject))
        # First, so that after a kill no ingest brings back what is gone.
        stone = tombstones.write(home, subject, part=journal.part, why=why)
        # Releases before rows, because the journal records which version replaced which.
        for old, new in redact.remove_subject(home, subject).items():
            journal.releases[old] = new
            journal.save()
        journal.add({"rows of tables": delete_rows(home, subject)})
        _delete_empty_parts(home, subject)
        left = copies.linked_media(home, subject)
        journal.add({"pictures": delete_media(home, subject)})
        cleared = inbox.clear(home, subject)
        _delete_empty_batches(home)
        journal.add({"files of the inbox": cleared.removed})
        shutil.rmtree(home.cache, ignore_errors=True)
        _delete_drafts(home)
        removed, unnamed = _delete_orphans(home, subject)
        journal.add({"pictures that no row named": removed})
        for step in after:
            journal.add(step(subject))
        # Download what remains on an object store, so that the search covers it.
        for folder in (home.root, home.media):
            mirror.sync(folder, force=True)
        # A path that holds other data by now is no trace.
        wanted = replace(subject, sources=tuple(sorted(set(subject.sources) - cleared.kept)))
        found = verify.search(home, wanted, skip=home.root / JOURNAL)
        stays = [f"{path}: {why}" for path, why in sorted(cleared.stays.items())]
        known = tuple(f"{path.relative_to(home.root)}:" for path in cleared.stays)
        others = [line for line in found.traces if not line.startswith(known)]
        found = replace(found, traces=[*others, *stays])
        replaced = [
            f"{old} -> {new or 'withdrawn'}" for old, new in sorted(journal.releases.items())
        ]
        tombstones.write(home, subject, part=journal.part, why=why, releases=replaced)
        left = list(dict.fromkeys([*cleared.left, *unnamed, *left, *copies.find(home, subject)]))
        if found.complete:
            journal.delete()
    return ErasureReport(
        what=stone,
        removed=journal.removed,
        releases=journal.releases,
        left=left,
        verification=found,
        notes=journal.notes,
    )


def delete_rows(home: Home, subject: DataSubject) -> int:
    """Delete the rows of a data subject; null other mentions; count rows."""
    removed = 0
    for table in TABLES.values():
        pattern = "batch=*/*.parquet" if table.by_batch else "*.parquet"
        for path in sorted((home.tables / table.name).glob(pattern)):
            frame = pl.read_parquet(path, glob=False)
            stay = _redacted(frame.filter(~_of_subject(frame, subject)), subject)
            if stay.equals(frame):
                continue
            removed += frame.height - stay.height
            if stay.is_empty():
                atomic.remove(path)
                continue
            footer = dict(pl.read_parquet_metadata(path))
            footer.pop("ARROW:schema", None)
            with atomic.replace_file(path) as draft:
                stay.write_parquet(draft, compression="zstd", statistics=True, metadata=footer)
    return removed


def _of_subject(frame: pl.DataFrame, subject: DataSubject) -> pl.Expr:
    ids = {
        "face_id": subject.faces,
        "track_id": subject.tracks,
        "video_id": subject.videos,
        # Without named people a video is a subject of its own (35_face_subjects.sql).
        "subject_id": (
            *(subject.spellings if subject.kind == "subject" else ()),
            *(f"video-{video}" for video in subject.videos),
        ),
        "clip_id": subject.items,
        "segment_id": subject.items,
        "sensor_id": subject.items,
        "item_id": subject.ids,
    }
    matches = [
        pl.col(name).is_in(pl.Series(values, dtype=pl.String).implode()).fill_null(False)
        for name, values in ids.items()
        if name in frame.columns
    ]
    if "item_id" in frame.columns:
        # What is about a whole video is about everyone in it, and a text may be about any of them.
        about = pl.col("item_id").is_in(pl.Series(subject.shared, dtype=pl.String).implode())
        matches.append(about.fill_null(False))
        if "author_kind" in frame.columns:
            matches.append(subject.is_of_shared("item_id"))
    # The row of a shared video stays for the other subjects; its mention is nulled.
    if "uri" in frame.columns:
        matches = [expr & ~pl.col("video_id").is_in(subject.shared) for expr in matches]
    return pl.any_horizontal(matches) if matches else pl.lit(False)


def _redacted(frame: pl.DataFrame, subject: DataSubject) -> pl.DataFrame:
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    blank = {"context": list(subject.contexts)}
    if subject.kind == "subject":
        blank["subject_id"] = list(subject.spellings)
    changed = []
    if {"item_id", "answers"} <= set(frame.columns):
        texts.remove("answers")
        short = pl.col("answers").map_elements(without_texts, return_dtype=pl.String)
        shared_item = subject.is_of_shared("item_id") & pl.col("answers").is_not_null()
        changed.append(pl.when(shared_item).then(short).otherwise("answers").alias("answers"))
    if "video_id" in frame.columns:
        # Sound, words and cuts of a shared video may be the data subject's.
        shared = pl.col("video_id").is_in(pl.Series(subject.shared, dtype=pl.String).implode())
        cuts = [name for name in _OF_ALL if name in frame.columns]
        texts = [name for name in texts if name not in cuts]
        changed += [pl.when(~shared).then(pl.col(name)).alias(name) for name in cuts]
    for name in texts:
        value = pl.col(name)
        mentions = value.str.contains_any(list(subject.ids)) if subject.ids else pl.lit(False)
        if name in blank:
            mentions = mentions | value.is_in(blank[name])
        # Keys of remaining rows never match: ids of others do not contain these ids.
        changed.append(pl.when(mentions.fill_null(False)).then(None).otherwise(value).alias(name))
    return frame.with_columns(changed)


def without_texts(answers: str) -> str | None:
    """Return answers (JSON) without texts and open words; None if none stays."""
    try:
        given = json.loads(answers)
        left = {
            name: value
            for name, value in given.items()
            if not isinstance(value, str) and name != "words"
        }
    except (ValueError, AttributeError):
        return None
    return json.dumps(left, sort_keys=True, ensure_ascii=False) if left else None


def delete_media(home: Home, subject: DataSubject) -> int:
    """Delete images, clips and sounds, except crops that other faces share."""
    removed = 0
    for key in sorted({*subject.crops, *subject.contexts} - media.named(home).keys):
        try:
            path = media.path_of(home, key)
        except MediaError:
            continue
        removed += path.exists()
        atomic.remove(path)
    # Clips and sounds are named after their track, marked contexts after their face, segments
    # after their video. Those of a shared video show others and the data subject.
    heads = {*subject.tracks, *subject.videos, *subject.shared}
    for folder in ("clips", "sound", "marked", "segments", "pictures", "videos", "sensors"):
        mirror.sync(home.media / folder, force=True)
        for path in sorted((home.media / folder).glob("*")):
            video, _, rest = path.stem.partition("-")
            if heads & {path.stem, video, f"{video}-{rest.partition('-')[0]}"}:
                removed += 1
                atomic.remove(path)
    return removed


def _delete_orphans(home: Home, subject: DataSubject) -> tuple[int, list[str]]:
    """Delete media files that no row names: a killed process left them.

    On an object store they may be of a process on another machine. Those that look like a picture
    of the data subject are deleted there, and the others reported.

    Returns:
        Number of files deleted, and one line about those that stay.
    """
    mirror.sync(home.media, force=True)
    found = media.orphans(home)
    if mirror.find(home.media / "any") is not None:
        alike = [path for path in found if verify.is_alike(subject, path)]
        stay = len(found) - len(alike)
        found = alike
    else:
        stay = 0
    for path in found:
        atomic.remove(path)
    why = "that no row names may be those of an ingest on another machine, or of a killed one"
    return len(found), [f"{home.media}: {stay} files {why}"] if stay else []


def _delete_drafts(home: Home) -> None:
    """Delete drafts of killed processes: the subject may be in them."""
    # The lock of the erasure keeps writers out, so every draft of these folders is left over.
    for folder in (home.tables, home.media, home.inbox, home.releases):
        atomic.delete_stale_drafts(folder, older_than_s=0.0, now=lambda: float("inf"))
    atomic.delete_stale_drafts(home.root, older_than_s=_DAY_S, now=time.time)
    mirror.delete_stale_fetches(home.root, older_than_s=_DAY_S)


def _delete_empty_batches(home: Home) -> None:
    """Delete empty folders of batches: names of people occur."""
    folders = [*home.inbox.glob("*"), *home.tables.glob("*/batch=*")]
    for folder in folders:
        if folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _delete_empty_parts(home: Home, subject: DataSubject) -> None:
    """Delete files without rows that are named after a video of the subject."""
    for table in TABLES.values():
        for path in sorted((home.tables / table.name).glob("batch=*/*.parquet")):
            if path.name.partition(".")[0] in subject.videos:
                atomic.remove(path)


@dataclass
class _Journal:
    """Plan and progress of an erasure, in a file until the end.

    ``part`` names its file of tombstones.
    """

    path: Path
    subject: DataSubject
    part: str = field(default_factory=tombstones.new_part)
    removed: dict[str, int] = field(default_factory=dict)
    releases: dict[str, str | None] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, subject: DataSubject) -> _Journal:
        journal = cls(path, subject)
        if path.exists():
            entry = json.loads(path.read_text())
            journal.removed, journal.releases = entry["removed"], entry["releases"]
            journal.part = entry.get("part") or journal.part
        journal.save()
        return journal

    def save(self) -> None:
        entry = {
            "removed": self.removed,
            "releases": self.releases,
            "part": self.part,
            "subject": self.subject.to_json(),
        }
        atomic.write_text(self.path, json.dumps(entry))

    def add(self, result: Mapping[str, Any]) -> None:
        """Add the counts of a step; other values are notes."""
        for what, value in result.items():
            if isinstance(value, int):
                self.removed[what] = self.removed.get(what, 0) + value
                self.save()
            else:
                self.notes[what] = value

    def delete(self) -> None:
        atomic.remove(self.path)
        with contextlib.suppress(OSError):  # it holds the journals of others
            self.path.parent.rmdir()


def _read_plan(path: Path) -> DataSubject:
    # The plan's key differs in journals of earlier versions.
    entry = json.loads(path.read_text())
    plans = (text for key, text in entry.items() if isinstance(text, str) and key != "part")
    return DataSubject.from_json(next(plans))


def _journal_path(home: Home, kind: str, name: str) -> Path:
    folded = fold_name(name) if kind == "subject" else name
    paths = [
        home.root / JOURNAL / f"{sha256_of([kind.encode(), b' ', one.encode()])[:16]}.json"
        for one in (folded, name)
    ]
    return paths[1] if paths[1].exists() else paths[0]
