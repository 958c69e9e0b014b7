"""Ingest respects tombstones: the files of somebody who was forgotten end as a verdict."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from warehouse.ids import sha256_of
from warehouse.privacy import tombstones
from warehouse.privacy.tombstones import Blocklist
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

REASON = "forgotten"

_MEND = (
    "was erased on request; delete this file, or let them back in with `risorius forget --again`"
)
_STONE = re.compile(rf"{REASON}: ([a-z]+-[0-9a-f]{{8}}) ")


def refuse(home: Home, batch: str) -> int:
    """Turn the rows of forgotten people's files into dropped ones; returns how many were turned.

    Such a row keeps the address, without which nobody could find the file to delete it, and
    nothing else that was read from it: neither hash nor subject. A video that shows somebody who
    left beside others keeps its row and the faces of the others, and is never searched again.
    """
    standing = tombstones.blocklist(home)
    if not standing.blocked | standing.shared:
        return 0
    rows = tables.read(home, "videos", batch=batch)
    refused = 0
    for row in rows.filter(~_is_refused()).iter_rows(named=True):
        stone = standing.find(video=row["video_id"], subject=row["subject_id"])
        shared = standing.find_shared(video=row["video_id"])
        if stone is None and shared and row["verdict"] == "kept" and _settled(home, row):
            continue
        if stone or shared:
            _replace(home, row, stone=stone or str(shared))
            refused += 1
            continue
        # Declared by now to show somebody else: the refusal it had no longer counts.
        for old in rows.filter(_is_refused(), pl.col("uri") == row["uri"]).iter_rows(named=True):
            tables.remove(home, "videos", part=_part(old), batch=batch)
    return refused


def readmit(home: Home, batch: str) -> int:
    """Forget refusals whose tombstone no longer stands, so that the files are read anew.

    Call before files are registered; returns how many.
    """
    rows = tables.read(home, "videos", batch=batch)
    refused = rows.filter(_is_refused())
    if refused.is_empty():
        return 0
    standing = tombstones.blocklist(home)
    freed = 0
    for row in refused.iter_rows(named=True):
        if not _stands(standing, row["reason"]):
            tables.remove(home, "videos", part=_part(row), batch=batch)
            freed += 1
    return freed


def _is_refused() -> pl.Expr:
    return pl.col("reason").fill_null("").str.starts_with(f"{REASON}:")


def _stands(standing: Blocklist, reason: str) -> bool:
    found = _STONE.match(reason)
    return found is not None and found[1] in standing.blocked | standing.shared


def _settled(home: Home, row: dict[str, Any]) -> bool:
    """Whether its faces were found before; then nothing looks for faces in it any more."""
    place = {"part": row["video_id"], "batch": row["batch"]}
    if not tables.metadata(home, "faces", **place):
        return False
    footer = tables.metadata(home, "videos", **place)
    if footer.get("registered") == "kept":
        kept = {"stamp": footer.get("stamp", ""), "registered": "settled"}
        frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
        tables.write(home, "videos", frame, **place, metadata=kept)
    return True


def _replace(home: Home, row: dict[str, Any], *, stone: str) -> None:
    old, batch = _old_part(home, row), row["batch"]
    footer = tables.metadata(home, "videos", part=old, batch=batch)
    kept = {"stamp": footer.get("stamp", ""), "registered": "dropped"}
    bare: dict[str, Any] = dict.fromkeys(TABLES["videos"].columns) | {
        "video_id": sha256_of([stone.encode(), row["uri"].encode()])[:16],
        "uri": row["uri"], "batch": batch, "licence": "unknown", "source": row["source"],
        "verdict": "dropped", "reason": f"{REASON}: {stone} {_MEND}",
    }  # fmt: skip
    frame = pl.DataFrame([bare], schema=TABLES["videos"].schema)
    # The new row first: a process killed in between leaves both, and the next call one.
    tables.write(home, "videos", frame, part=_part(bare), batch=batch, metadata=kept)
    tables.remove(home, "videos", part=old, batch=batch)


def _part(row: dict[str, Any]) -> str:
    return f"{row['video_id']}.{sha256_of([row['uri'].encode()])[:8]}"


def _old_part(home: Home, row: dict[str, Any]) -> str:
    """A row is filed under its video, a row that is no video's first under its address too."""
    there = tables.parts(home, "videos", batch=row["batch"])
    return _part(row) if _part(row) in there else row["video_id"]
