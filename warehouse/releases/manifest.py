"""A version's own account: what went in, with fingerprints, and what came out, with checksums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import sha256_of
from warehouse.releases.versions import MANIFEST

LAYOUT = 2
"""Raised when the same inputs would be laid out differently: every release gets a new version."""

_SLICE = 5000


def fingerprint(frame: pl.DataFrame) -> dict[str, int | str]:
    """Number of rows and a SHA-256 of their values, independent of chunks and files."""
    lines = (
        frame[start : start + _SLICE].write_ndjson().encode()
        for start in range(0, len(frame), _SLICE)
    )
    header = ",".join(f"{name} {kind}" for name, kind in frame.schema.items()).encode()
    return {"rows": len(frame), "sha256": sha256_of([header, *lines])}


def digest(value: object, *, what: str) -> str:
    """SHA-256 of a value as canonical JSON.

    Raises:
        ReleaseError: ``value`` holds what JSON cannot say: a time, a path, NaN.
    """
    return sha256_of([dumps(value, what=what).encode()])


def dumps(value: object, *, what: str) -> str:
    """Canonical JSON: keys in order, no NaN.

    Raises:
        ReleaseError: as ``digest``.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=1)
    except (TypeError, ValueError) as error:
        raise ReleaseError(
            f"{what} of text, numbers, lists and mappings",
            got=str(error),
            hint="turn times and paths into text, and NaN into nothing",
        ) from error


def inputs(
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    *,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    drop_flagged: bool,
) -> dict[str, Any]:
    """What decides whether a build would say anything new.

    Crops count through the hashes in their keys. The code's version is recorded but does not
    count: a commit alone makes no new version. The time is nowhere: it would make every build
    differ; the table ``releases`` keeps it.
    """
    return {
        "layout": LAYOUT,
        "rows": fingerprint(rows),
        "votes": fingerprint(votes),
        "facts": digest(facts, what="facts"),
        "settings": digest(settings, what="settings"),
        "drop_flagged": drop_flagged,
    }


def write(folder: Path, contents: Mapping[str, Any]) -> None:
    """Write ``manifest.json``; the last file of a version, for it lists all the others."""
    (folder / MANIFEST).write_text(dumps(contents, what="a manifest") + "\n")
