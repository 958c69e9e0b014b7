"""Tombstones: keyed hashes of erased data subjects, for ingest to refuse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from warehouse.errors import SettingsError
from warehouse.ids import pseudonym
from warehouse.privacy.data_subject import DataSubject
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

LIFTED = "let back in"
"""Value of ``why`` in the row that lifts a tombstone; older rows stay."""

_OF = re.compile(r"(of|shared with) ((?:subject|video)-[0-9a-f]{8})")


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
        person = pseudonym("subject", self.salt, subject) if subject else None
        names = (person, pseudonym("video", self.salt, video))
        return next((name for name in names if name in self.blocked), None)

    def find_shared(self, *, video: str) -> str | None:
        """Return the tombstone of a shared video; or None."""
        name = pseudonym("video", self.salt, video)
        return name if name in self.shared else None


def name_of(home: Home, kind: str, name: str) -> str:
    """Return ``<kind>-<8 hex>``, a hash keyed with the home's salt."""
    return pseudonym(kind, home.salt(), name)


def blocklist(home: Home) -> Blocklist:
    """Return the tombstones in force; a video's depends on its subject's."""
    rows = tables.read(home, "tombstones").sort("when", "what")
    newest: dict[str, str] = {}
    parts: list[tuple[str, str, str]] = []
    for what, why in rows.select("what", "why").iter_rows():
        if found := _OF.fullmatch(why or ""):
            parts.append((what, *found.groups()))
        else:
            newest[what] = why
    blocked = {what for what, why in newest.items() if why != LIFTED}
    related = [(what, how) for what, how, owner in parts if owner in blocked]
    whole = blocked | {what for what, how in related if how == "of"}
    return Blocklist(
        salt=home.salt() if newest else "",
        blocked=frozenset(whole),
        shared=frozenset(what for what, _ in related) - whole,
    )


def write(home: Home, subject: DataSubject, *, why: str, releases: Sequence[str]) -> str:
    """Write one row for the data subject and one per video; return its name."""
    stone = name_of(home, subject.kind, subject.name)
    rows: list[dict[str, object]] = [{"what": stone, "why": why, "releases": list(releases)}]
    for how, videos in (("of", subject.videos), ("shared with", subject.shared)):
        names = (name_of(home, "video", video) for video in videos)
        rows += [
            {"what": name, "why": f"{how} {stone}", "releases": []}
            for name in names
            if name != stone
        ]
    _append(home, rows, stone)
    return stone


def erased_at(home: Home, kind: str, name: str) -> datetime | None:
    """Return the time of the erasure in force; None if there is none."""
    stone = name_of(home, kind, name)
    rows = tables.read(home, "tombstones").filter(pl.col("what") == stone)
    when = rows.filter(pl.col("why") != LIFTED)["when"].max()
    return when if stone in blocklist(home).blocked and isinstance(when, datetime) else None


def lift(home: Home, kind: str, name: str) -> str:
    """Lift a tombstone, so that ingest accepts the files again.

    Erased data is not restored.

    Raises:
        SettingsError: there is no such tombstone, or a video's depends on its subject's.
    """
    stone = name_of(home, kind, name)
    if stone not in blocklist(home).blocked:
        raise SettingsError(
            f"The {kind} has no tombstone", got=stone, hint="ingest its files; they are not refused"
        )
    rows = tables.read(home, "tombstones").filter(pl.col("what") == stone)
    if all(_OF.fullmatch(why or "") for why in rows["why"]):
        raise SettingsError(
            f"The {kind} was erased together with its subject",
            got=stone,
            hint="lift the subject's tombstone with --subject",
        )
    _append(home, [{"what": stone, "why": LIFTED, "releases": []}], stone)
    return stone


def _append(home: Home, rows: list[dict[str, object]], stone: str) -> None:
    now = datetime.now(UTC)
    frame = pl.DataFrame([row | {"when": now} for row in rows], schema=TABLES["tombstones"].schema)
    tables.write(home, "tombstones", frame, part=f"{now:%Y%m%dT%H%M%S%fZ}-{stone}")
