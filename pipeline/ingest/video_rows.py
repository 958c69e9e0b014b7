"""Rows of ``videos``: written when a source is read, and again when its faces were sought."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import polars as pl

from pipeline.ingest import attempts, changed_files, manifest
from pipeline.ingest.deduplicate import Copies
from warehouse.ids import sha256_of
from warehouse.storage import tables
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
        tried: what was tried in vain, as ``attempts.note`` gives it.
    """
    frame = pl.DataFrame(
        [{**row, "verdict": verdict, "reason": reason}], schema=TABLES["videos"].schema
    )
    before = footer(home, row)
    kept: dict[str, str] = {
        name: before[name] for name in ("stamp", "registered") if name in before
    }
    if tried is not None:
        kept[attempts.KEY] = tried
    tables.write(home, "videos", frame, part=row["video_id"], batch=row["batch"], metadata=kept)


def footer(home: Home, row: dict[str, Any]) -> dict[str, str]:
    """What the file of a video's row says in its footer; nothing for copies and the retired."""
    if (row["reason"] or "").startswith(("duplicate", f"{changed_files.REASON}:")):
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
