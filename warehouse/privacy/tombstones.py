"""Tombstones: keyed hashes of erased data subjects, for ingest to refuse.

The column ``event`` says what a row means, and ``number`` counts the rows of a name. So neither
the text in ``why`` nor the clock of a machine decides what is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from warehouse.errors import SettingsError
from warehouse.ids import fold_name, pseudonym
from warehouse.privacy.data_subject import DataSubject
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

ERASED, LIFTED, OF, SHARED = "erased", "lifted", "of", "shared with"
"""Events: erased itself; allowed again; video of an erased subject; video that shows one too."""

_LIFTED_TEXT = "let back in"
_OF_TEXT = re.compile(r"(of|shared with) ((?:subject|video)-[0-9a-f]{8})")


@dataclass(frozen=True)
class Blocklist:
    """Tombstones in force.

    Attributes:
        blocked: tombstone names of subjects and videos that ingest refuses.
        shared: tombstone names of videos that show an erased subject beside others. Data of the
            others stays, and faces are not detected in the video again.
    """

    salt: str
    blocked: frozenset[str]
    shared: frozenset[str]

    def find(self, *, video: str, subject: str | None) -> str | None:
        """Return the tombstone that blocks a file, the subject's first; or None."""
        people = _names(self.salt, "subject", subject) if subject else ()
        names = (*people, pseudonym("video", self.salt, video))
        return next((name for name in names if name in self.blocked), None)

    def find_shared(self, *, video: str) -> str | None:
        """Return the tombstone of a shared video; or None."""
        name = pseudonym("video", self.salt, video)
        return name if name in self.shared else None


def name_of(home: Home, kind: str, name: str) -> str:
    """Return ``<kind>-<8 hex>``, a hash keyed with the home's salt.

    All spellings of a name have the same one, see ``ids.fold_name``.
    """
    return _names(home.salt(), kind, name)[0]


def blocklist(home: Home) -> Blocklist:
    """Return the tombstones in force; a video's depends on its subject's."""
    newest: dict[str, tuple[int, bool]] = {}
    parts: list[tuple[str, str, str]] = []
    for row in _rows(home):
        what, event = row["what"], row["event"]
        if event in (OF, SHARED):
            parts.append((what, event, row["owner"]))
        else:
            # Of two machines that wrote the same number, the one that erased wins.
            newest[what] = max(newest.get(what, (0, False)), (row["number"], event == ERASED))
    blocked = {what for what, (_, erased) in newest.items() if erased}
    related = [(what, event) for what, event, owner in parts if owner in blocked]
    whole = blocked | {what for what, event in related if event == OF}
    return Blocklist(
        salt=home.salt() if newest else "",
        blocked=frozenset(whole),
        shared=frozenset(what for what, _ in related) - whole,
    )


def write(
    home: Home, subject: DataSubject, *, part: str, why: str, releases: Sequence[str] = ()
) -> str:
    """Write one row for the data subject and one per video; return its name.

    Args:
        part: of this erasure. A second call with the same part rewrites it.
    """
    stone = name_of(home, subject.kind, subject.name)
    rows = [_row(stone, ERASED, why, releases=list(releases))]
    for event, videos in ((OF, subject.videos), (SHARED, subject.shared)):
        names = (name_of(home, "video", video) for video in videos)
        rows += [
            _row(name, event, f"{event} {stone}", owner=stone) for name in names if name != stone
        ]
    _write(home, rows, part=part, stone=stone)
    return stone


def erased_at(home: Home, kind: str, name: str) -> datetime | None:
    """Return the time of the erasure in force; None if there is none."""
    blocked = blocklist(home).blocked
    for stone in _names(home.salt(), kind, name):
        if stone in blocked:
            found = [row["when"] for row in _rows(home) if row["what"] == stone]
            return max((when for when in found if when), default=None)
    return None


def lift(home: Home, kind: str, name: str) -> str:
    """Lift a tombstone, so that ingest accepts the files again.

    Erased data is not restored.

    Raises:
        SettingsError: there is no such tombstone, or a video's depends on its subject's.
    """
    blocked, names = blocklist(home).blocked, _names(home.salt(), kind, name)
    stone = next((one for one in names if one in blocked), None)
    if stone is None:
        raise SettingsError(
            f"The {kind} has no tombstone",
            got=names[0],
            hint="ingest its files; they are not refused",
        )
    if all(row["event"] in (OF, SHARED) for row in _rows(home) if row["what"] == stone):
        raise SettingsError(
            f"The {kind} was erased together with its subject",
            got=stone,
            hint="lift the subject's tombstone with --subject",
        )
    _write(home, [_row(stone, LIFTED, _LIFTED_TEXT)], part=new_part(), stone=stone)
    return stone


def new_part() -> str:
    """Return the name of a new file of the table."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"


def _names(salt: str, kind: str, name: str) -> tuple[str, ...]:
    """Return the tombstone name, and the one that earlier versions gave."""
    folded = fold_name(name) if kind == "subject" else name
    return tuple(dict.fromkeys((pseudonym(kind, salt, folded), pseudonym(kind, salt, name))))


def _rows(home: Home) -> list[dict[str, Any]]:
    """Return all rows with event and number.

    Earlier versions wrote neither: the text in ``why`` was the event, the clock the order.
    """
    rows = tables.read(home, "tombstones").sort("number", "when", "what", nulls_last=False)
    found, count = [], dict[str, int]()
    for row in rows.iter_rows(named=True):
        what, why = row["what"], row["why"] or ""
        count[what] = count.get(what, 0) + 1
        if row["event"] is None:
            part = _OF_TEXT.fullmatch(why)
            row["event"], row["owner"] = part.groups() if part else (ERASED, None)
            if why == _LIFTED_TEXT:
                row["event"] = LIFTED
        found.append(row | {"number": row["number"] or count[what]})
    return found


def _row(what: str, event: str, why: str, **more: object) -> dict[str, object]:
    return {"what": what, "event": event, "why": why, "releases": [], "owner": None, **more}


def _write(home: Home, rows: list[dict[str, object]], *, part: str, stone: str) -> None:
    part = f"{part}-{stone}"
    earlier = tables.read_part(home, "tombstones", part=part)
    last = {row["what"]: row["number"] for row in _rows(home)}
    same = dict(earlier.select("what", "number").iter_rows())
    when = earlier["when"].max() or datetime.now(UTC)
    whole = [
        row | {"when": when, "number": same.get(row["what"]) or last.get(row["what"], 0) + 1}
        for row in rows
    ]
    frame = pl.DataFrame(whole, schema=TABLES["tombstones"].schema)
    tables.write(home, "tombstones", frame, part=part)
