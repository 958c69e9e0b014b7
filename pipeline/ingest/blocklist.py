"""Keep files of erased data subjects out of ingestion."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from pipeline.ingest.manifest import part_of
from warehouse.ids import sha256_of
from warehouse.privacy import tombstones
from warehouse.privacy.tombstones import Blocklist
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

REASON = "forgotten"

_EXPLANATION = (
    "was erased on request; delete this file, or let them back in with `risorius forget --again`"
)
_TOMBSTONE = re.compile(rf"{REASON}: ([a-z]+-[0-9a-f]{{8}}) ")


def refuse(home: Home, batch: str) -> int:
    """Drop the rows of files that show erased subjects; return how many.

    A dropped row keeps the address, which is needed to delete the file, but neither hash nor
    subject. A video that shows an erased subject beside others keeps its row and the faces of the
    others, and is never searched again.
    """
    blocklist = tombstones.blocklist(home)
    if not blocklist.blocked | blocklist.shared:
        return 0
    rows = tables.read(home, "videos", batch=batch)
    refused = 0
    for row in rows.filter(~_is_refused()).iter_rows(named=True):
        tombstone = blocklist.find(video=row["video_id"], subject=row["subject_id"])
        shared = blocklist.find_shared(video=row["video_id"])
        if tombstone is None and shared and row["verdict"] == "kept" and _is_frozen(home, row):
            continue
        if tombstone or shared:
            _replace(home, row, tombstone=tombstone or str(shared))
            refused += 1
            continue
        # The sidecar now declares another subject, so the earlier refusal is void.
        for old in rows.filter(_is_refused(), pl.col("uri") == row["uri"]).iter_rows(named=True):
            tables.remove(home, "videos", part=part_of(old), batch=batch)
    return refused


def readmit(home: Home, batch: str) -> int:
    """Remove refusals whose tombstone was lifted.

    Call before files are registered, so that they are read again.

    Returns:
        Number of rows removed.
    """
    rows = tables.read(home, "videos", batch=batch)
    refused = rows.filter(_is_refused())
    if refused.is_empty():
        return 0
    blocklist = tombstones.blocklist(home)
    freed = 0
    for row in refused.iter_rows(named=True):
        if not _stands(blocklist, row["reason"]):
            tables.remove(home, "videos", part=part_of(row), batch=batch)
            freed += 1
    return freed


def _is_refused() -> pl.Expr:
    return pl.col("reason").fill_null("").str.starts_with(f"{REASON}:")


def _stands(blocklist: Blocklist, reason: str) -> bool:
    found = _TOMBSTONE.match(reason)
    return found is not None and found[1] in blocklist.blocked | blocklist.shared


def _is_frozen(home: Home, row: dict[str, Any]) -> bool:
    """Return whether faces were found before; exclude further searches."""
    place = {"part": row["video_id"], "batch": row["batch"]}
    if not tables.metadata(home, "faces", **place):
        return False
    footer = tables.metadata(home, "videos", **place)
    if footer.get("registered") == "kept":
        kept = {"stamp": footer.get("stamp", ""), "registered": "settled"}
        frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
        tables.write(home, "videos", frame, **place, metadata=kept)
    return True


def _replace(home: Home, row: dict[str, Any], *, tombstone: str) -> None:
    old, batch = _old_part(home, row), row["batch"]
    footer = tables.metadata(home, "videos", part=old, batch=batch)
    kept = {"stamp": footer.get("stamp", ""), "registered": "dropped"}
    bare: dict[str, Any] = dict.fromkeys(TABLES["videos"].columns) | {
        "video_id": sha256_of([tombstone.encode(), row["uri"].encode()])[:16],
        "uri": row["uri"], "batch": batch, "licence": "unknown", "source": row["source"],
        "verdict": "dropped", "reason": f"{REASON}: {tombstone} {_EXPLANATION}",
    }  # fmt: skip
    frame = pl.DataFrame([bare], schema=TABLES["videos"].schema)
    # The new row first: a process killed in between leaves both rows, and the next call one.
    tables.write(home, "videos", frame, part=part_of(bare), batch=batch, metadata=kept)
    tables.remove(home, "videos", part=old, batch=batch)


def _old_part(home: Home, row: dict[str, Any]) -> str:
    """Return the part name under which a row is stored."""
    there = tables.parts(home, "videos", batch=row["batch"])
    return part_of(row) if part_of(row) in there else row["video_id"]
