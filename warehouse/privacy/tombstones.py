"""Who was forgotten, by keyed hashes alone, so that ingest can refuse them without knowing them."""

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
"""Why of a row by which a person comes back; the older rows stay."""

_OF = re.compile(r"(of|shared with) ((?:subject|video)-[0-9a-f]{8})")


@dataclass(frozen=True)
class Blocklist:
    """Tombstones that bar somebody now.

    Attributes:
        blocked: names of subjects and videos that must not come in.
        shared: names of videos in which somebody who left is seen beside others: what is known
            of the others stays, and the video is not searched for faces again.
    """

    salt: str
    blocked: frozenset[str]
    shared: frozenset[str]

    def find(self, *, video: str, subject: str | None) -> str | None:
        """The tombstone that keeps a file out, the person's before the video's, or None."""
        person = pseudonym("subject", self.salt, subject) if subject else None
        names = (person, pseudonym("video", self.salt, video))
        return next((name for name in names if name in self.blocked), None)

    def find_shared(self, *, video: str) -> str | None:
        """The tombstone of a video that shows somebody who left beside others, or None."""
        name = pseudonym("video", self.salt, video)
        return name if name in self.shared else None


def name_of(home: Home, kind: str, name: str) -> str:
    """``<kind>-<8 hex>``, which nobody turns back into a name without the home's salt."""
    return pseudonym(kind, home.salt(), name)


def blocklist(home: Home) -> Blocklist:
    """Who is barred; a video stays barred as long as the person for whom it went is."""
    rows = tables.read(home, "tombstones").sort("when", "what")
    newest: dict[str, str] = {}
    parts: list[tuple[str, str, str]] = []
    for what, why in rows.select("what", "why").iter_rows():
        if found := _OF.fullmatch(why or ""):
            parts.append((what, *found.groups()))
        else:
            newest[what] = why
    gone = {what for what, why in newest.items() if why != LIFTED}
    held = [(what, how) for what, how, owner in parts if owner in gone]
    whole = gone | {what for what, how in held if how == "of"}
    return Blocklist(
        salt=home.salt() if newest else "",
        blocked=frozenset(whole),
        shared=frozenset(what for what, _ in held) - whole,
    )


def write(home: Home, leaver: DataSubject, *, why: str, releases: Sequence[str]) -> str:
    """One row for who left and one for each of their videos; returns the name of the first."""
    stone = name_of(home, leaver.kind, leaver.name)
    rows: list[dict[str, object]] = [{"what": stone, "why": why, "releases": list(releases)}]
    for how, videos in (("of", leaver.videos), ("shared with", leaver.shared)):
        names = (name_of(home, "video", video) for video in videos)
        rows += [
            {"what": name, "why": f"{how} {stone}", "releases": []}
            for name in names
            if name != stone
        ]
    _append(home, rows, stone)
    return stone


def last(home: Home, kind: str, name: str) -> datetime | None:
    """When somebody was forgotten, if they were and have not come back."""
    stone = name_of(home, kind, name)
    rows = tables.read(home, "tombstones").filter(pl.col("what") == stone)
    when = rows.filter(pl.col("why") != LIFTED)["when"].max()
    return when if stone in blocklist(home).blocked and isinstance(when, datetime) else None


def lift(home: Home, kind: str, name: str) -> str:
    """Let somebody come back: ingest takes their files again. What was erased stays erased.

    Raises:
        SettingsError: nobody of that name is barred, or a video is so for the sake of a person.
    """
    stone = name_of(home, kind, name)
    if stone not in blocklist(home).blocked:
        raise SettingsError(
            f"a {kind} that was forgotten", got=stone, hint="nothing keeps its files out"
        )
    rows = tables.read(home, "tombstones").filter(pl.col("what") == stone)
    if all(_OF.fullmatch(why or "") for why in rows["why"]):
        raise SettingsError(
            f"a {kind} that left on its own account",
            got=f"{stone}, which went with a person",
            hint="let the person back in with --subject",
        )
    _append(home, [{"what": stone, "why": LIFTED, "releases": []}], stone)
    return stone


def _append(home: Home, rows: list[dict[str, object]], stone: str) -> None:
    now = datetime.now(UTC)
    frame = pl.DataFrame([row | {"when": now} for row in rows], schema=TABLES["tombstones"].schema)
    tables.write(home, "tombstones", frame, part=f"{now:%Y%m%dT%H%M%S%fZ}-{stone}")
