"""Take one subject or video out of a home: tasks, releases, tables, media, inbox, copies."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from warehouse.errors import SettingsError
from warehouse.ids import sha256_of
from warehouse.privacy import data_subject, inbox, removal, tombstones
from warehouse.privacy import verify as absence
from warehouse.privacy.data_subject import DataSubject
from warehouse.privacy.verify import Absence
from warehouse.storage import atomic, mirror
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

JOURNAL = "forgetting"
_DAY_S = 86_400.0

Step = Callable[[DataSubject], Mapping[str, Any]]
"""Removes a leaver from an outside system and returns what it did, as counts; may be repeated."""


@dataclass(frozen=True)
class Forgotten:
    """What was done.

    Attributes:
        what: the tombstone's name for them: kind and a keyed hash, no personal data.
        removed: counts by place.
        releases: ``<name> <version>`` to what replaced it, None for nothing.
        left: ``<where>: <why>`` of what shows them, or may, and is not ours to delete.
        absence: what a search of the home for them found afterwards; its traces name what stays
            in the inbox too.
    """

    what: str
    removed: dict[str, int]
    releases: dict[str, str | None]
    left: list[str]
    absence: Absence
    notes: dict[str, Any] = field(default_factory=dict)


def plan(home: Home, kind: str, name: str) -> DataSubject:
    """Who would leave and with what; an erasure that was cut short is found as it began.

    Raises:
        SettingsError: nobody of that name is there; says so when they have left already.
    """
    entry = _entry(home, kind, name)
    if entry.exists():
        return DataSubject.from_json(json.loads(entry.read_text())["leaver"])
    try:
        return data_subject.find(home, kind, name)
    except SettingsError as error:
        if last := tombstones.last(home, kind, name):
            raise SettingsError(
                f"a {kind} that is still there",
                got=f"{tombstones.name_of(home, kind, name)}, forgotten on {last:%Y-%m-%d}",
                hint="there is nothing left to do",
            ) from error
        raise


def pending(home: Home) -> list[tuple[str, str]]:
    """Kind and name of erasures that were cut short."""
    folder = home.root / JOURNAL
    entries = sorted(folder.glob("*.json")) if folder.is_dir() else []
    leavers = [DataSubject.from_json(json.loads(entry.read_text())["leaver"]) for entry in entries]
    return [(leaver.kind, leaver.name) for leaver in leavers]


def forget(
    home: Home,
    kind: str,
    name: str,
    *,
    why: str = "asked to",
    before: Sequence[Step] = (),
    after: Sequence[Step] = (),
) -> Forgotten:
    """Erase somebody, or finish an erasure that was cut short; then prove it.

    Releases that held them are written anew without them and the old versions withdrawn; see
    ``releases.rewrite``. A journal in the home keeps the plan until all is done; then a row of
    ``tombstones`` says what was erased, when, why, and which releases held it, and ingest refuses
    their files from then on.

    Args:
        why: kept in the tombstone; must not name the person.
        before: outside systems to clear first (labelling tasks): when one refuses, nothing has
            been touched. ``after``: those that may hold copies of what the tables said.

    Raises:
        SettingsError: nobody of that name is there.
        ReleaseError, StudioError, TableError: a step failed; run the same command again.
    """
    from warehouse.releases import redact

    with _alone(home):
        mirror.sync(home.root, force=True)
        leaver = plan(home, kind, name)
        journal = _Journal.begin(_entry(home, kind, name), leaver)
        for step in before:
            journal.note(step(leaver))
        # Before a row is gone, because a replaced version says here what it replaced.
        for old, new in redact.remove_subject(home, leaver).items():
            journal.replaced(old, new)
        journal.add("rows of tables", removal.from_tables(home, leaver))
        _drop_parts(home, leaver)
        journal.add("pictures", removal.from_media(home, leaver))
        cleared = inbox.clear(home, leaver)
        journal.add("files of the inbox", cleared.removed)
        shutil.rmtree(home.cache, ignore_errors=True)
        # What a killed process left half written may hold their rows, and no table reads it.
        atomic.delete_stale_drafts(home.root, older_than_s=_DAY_S, now=time.time)
        for step in after:
            journal.note(step(leaver))
        # What is left on an object store is fetched, so that the search sees it too.
        for folder in (home.root, home.media):
            mirror.sync(folder, force=True)
        # An address under which something else lies by now is no trace of theirs.
        gone = replace(leaver, sources=tuple(sorted(set(leaver.sources) - cleared.kept)))
        found = absence.search(home, gone, skip=home.root / JOURNAL)
        stone = _tombstone(home, leaver, journal, why=why)
        journal.end()
    return Forgotten(
        what=stone,
        removed=journal.removed,
        releases=journal.releases,
        left=cleared.left,
        absence=replace(found, traces=[*found.traces, *cleared.stays]),
        notes=journal.notes,
    )


def _drop_parts(home: Home, leaver: DataSubject) -> None:
    """Delete files without rows that bear the id of their video: it had no face, or no track."""
    for table in TABLES.values():
        for path in sorted((home.tables / table.name).glob("batch=*/*.parquet")):
            if path.name.partition(".")[0] in leaver.videos:
                atomic.remove(path)


@dataclass
class _Journal:
    """What is to be done and what was; a file until the end."""

    path: Path
    leaver: DataSubject
    removed: dict[str, int] = field(default_factory=dict)
    releases: dict[str, str | None] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, leaver: DataSubject) -> _Journal:
        journal = cls(path, leaver)
        if path.exists():
            told = json.loads(path.read_text())
            journal.removed, journal.releases = told["removed"], told["releases"]
        journal.keep()
        return journal

    def keep(self) -> None:
        told = {"removed": self.removed, "releases": self.releases, "leaver": self.leaver.text()}
        atomic.write_text(self.path, json.dumps(told))

    def add(self, what: str, n: int) -> None:
        self.removed[what] = self.removed.get(what, 0) + n
        self.keep()

    def replaced(self, old: str, new: str | None) -> None:
        self.releases[old] = new
        self.keep()

    def note(self, told: Mapping[str, Any]) -> None:
        for what, value in told.items():
            if isinstance(value, int):
                self.add(what, value)
            else:
                self.notes[what] = value

    def end(self) -> None:
        atomic.remove(self.path)
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _tombstone(home: Home, leaver: DataSubject, journal: _Journal, *, why: str) -> str:
    held = [f"{old} -> {new or 'withdrawn'}" for old, new in sorted(journal.releases.items())]
    return tombstones.write(home, leaver, why=why, releases=held)


def _entry(home: Home, kind: str, name: str) -> Path:
    return home.root / JOURNAL / f"{sha256_of([kind.encode(), b' ', name.encode()])[:16]}.json"


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    home.root.mkdir(parents=True, exist_ok=True)
    with open(home.root / ".forgetting-lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
