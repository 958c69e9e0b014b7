"""Store what ``videos.csv`` states about people and recordings.

Columns ``subject_*`` and ``session_*`` become rows of ``subjects`` and ``sessions``, each with who
stated it. Nothing is guessed from pictures. Facts about a person need a consent of their own, the
column ``subject_consent``; facts about a recording need the stated consent of their video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from pipeline.ingest import manifest
from warehouse import consent
from warehouse.sidecar import FACTS, STATED_BY
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

DEFAULT_STATED_BY = "collector"
"""Who states a fact of ``videos.csv`` that names no one: the person who wrote it."""

_LONGEST = 200


@dataclass(frozen=True)
class _Fact:
    """A fact about a subject or a video; ``reason`` says why it is not stored."""

    table: str
    about: str
    field: str
    value: str
    stated_by: str
    reason: str | None


def write_facts(home: Home, batch: str) -> None:
    """Replace the rows of ``subjects`` and ``sessions`` of a batch."""
    found, _ = _sorted(home, batch)
    for name, frame in found.items():
        if frame.is_empty():
            tables.remove(home, name, part=batch)
        elif not tables.read_part(home, name, part=batch).equals(frame):
            tables.write(home, name, frame, part=batch)


def left_out(home: Home, batch: str) -> list[str]:
    """Return why facts that a batch states are not stored, in sentences."""
    _, left = _sorted(home, batch)
    return [
        f"{number} {'fact' if number == 1 else 'facts'} of {manifest.SIDECAR} not stored: {reason}"
        for reason, number in sorted(left.items())
    ]


def groups(home: Home, faces: pl.DataFrame) -> list[dict[str, Any]]:
    """Count the stated facts among faces, as the card of a release lists them.

    Args:
        faces: with ``subject_id`` and ``video_id``.
    """
    found = []
    for name, key in (("subjects", "subject_id"), ("sessions", "video_id")):
        stated = tables.read(home, name).drop("batch").unique()
        counted = stated.join(faces.select(key, who="subject_id"), on=key)
        rows = counted.group_by("field", "value", "stated_by").agg(
            subjects=pl.col("who").n_unique(), faces=pl.len()
        )
        for row in rows.sort("field", "value", "stated_by").iter_rows(named=True):
            group = f"{row.pop('field').replace('_', ' ')}, stated by {row.pop('stated_by')}"
            found.append({"group": group, **row})
    return found


def _sorted(home: Home, batch: str) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Return the rows of both tables, and reason to number of other facts."""
    found = list(_facts(home, batch, datetime.now(UTC).date()))
    left = dict(Counter(fact.reason for fact in found if fact.reason))
    frames = {}
    for name, key in (("subjects", "subject_id"), ("sessions", "video_id")):
        rows = [
            {key: fact.about, "field": fact.field, "value": fact.value,
             "stated_by": fact.stated_by, "batch": batch}
            for fact in found
            if fact.table == name and not fact.reason
        ]  # fmt: skip
        frame = pl.DataFrame(rows, schema=TABLES[name].schema).unique().sort(pl.all())
        several = pl.struct(key, "field", "stated_by").is_duplicated()
        if contradicting := frame.filter(several).height:
            left[f"{name} have two values for one field"] = contradicting
        frames[name] = frame.filter(~several)
    return frames, left


def _facts(home: Home, batch: str, today: date) -> Iterator[_Fact]:
    videos = tables.read(home, "videos", batch=batch)
    kept = videos.filter(pl.col("sha256").is_not_null())
    ids = dict(kept.select("uri", "video_id").iter_rows())
    subjects = dict(kept.select("uri", "subject_id").iter_rows())
    for source in manifest.list_sources(home.inbox / batch):
        stated = dict(source.facts)
        if source.uri not in ids or not stated:
            continue
        video = ids[source.uri]
        for column in sorted(stated.keys() & FACTS.keys()):
            person = column.startswith("subject_")
            terms = stated.get("subject_consent") if person else source.consent
            who = stated.get(STATED_BY[column]) or stated.get("stated_by") or DEFAULT_STATED_BY
            yield _Fact(
                "subjects" if person else "sessions",
                (subjects[source.uri] or f"video-{video}") if person else video,
                column.partition("_")[2],
                stated[column],
                who.lower(),
                _reason(stated[column], who.lower(), terms, person=person, today=today),
            )


def _reason(value: str, who: str, terms: str | None, *, person: bool, today: date) -> str | None:
    said = consent.parse(terms)
    refused = said.refusal(use=None, today=today, required=True)
    if refused:
        column = "subject_consent" if person else "consent"
        return f"{refused}: no consent for it in the column {column}"
    if who not in ("self", "collector", "machine", "source"):
        return f"stated_by {who!r} is none of self, collector, machine, source"
    if len(value) > _LONGEST:
        return f"longer than {_LONGEST} characters"
    return None
