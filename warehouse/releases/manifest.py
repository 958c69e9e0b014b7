"""Read, write and fingerprint the manifest of a version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256, sha256_of
from warehouse.releases.schema import CONFIGS

FILE = "manifest.json"

LAYOUT = 3
"""Raise it when the same inputs are laid out differently: every release gets a new version."""

_KEYS = {"code_version", "files", "inputs", "parent", "rows", "splits", "version"}
_SLICE = 5000


def read(path: Path) -> dict[str, Any]:
    """Return the manifest of the version at ``path``.

    Raises:
        ReleaseError: there is no version at ``path``, or its manifest is damaged.
    """
    try:
        contents = json.loads((path / FILE).read_text())
        if not isinstance(contents, dict) or not contents.keys() >= _KEYS:
            raise ValueError("keys are missing")
    except FileNotFoundError as error:
        raise ReleaseError(
            f"No release at {path}",
            got=f"the folder has no {FILE}" if path.exists() else "the folder does not exist",
            hint="name a version that `risorius release list` shows",
        ) from error
    except (ValueError, OSError) as error:
        raise ReleaseError(
            f"{FILE} in {path} cannot be read",
            got=str(error),
            hint="restore the version from a copy, or move its folder away",
        ) from error
    return contents


def write(folder: Path, contents: Mapping[str, Any]) -> None:
    """Write ``manifest.json``. It lists all other files, so write it last."""
    (folder / FILE).write_text(dumps(contents, name="The manifest") + "\n")


def inputs(
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    *,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    drop_flagged: bool,
) -> dict[str, Any]:
    """Fingerprint what decides whether a build makes a new version.

    Crops count through the hashes in their keys. The code version and the time do not count: a
    commit alone makes no new version, and a time would make one at every build.
    """
    return {
        "layout": LAYOUT,
        "rows": fingerprint(rows),
        "votes": fingerprint(votes),
        "facts": digest(facts, name="facts"),
        "settings": digest(settings, name="settings"),
        "drop_flagged": drop_flagged,
    }


def fingerprint(frame: pl.DataFrame) -> dict[str, int | str]:
    """Return the number of rows and a SHA-256 of their values.

    The hash does not depend on chunks or files.
    """
    lines = (
        frame[start : start + _SLICE].write_ndjson().encode()
        for start in range(0, len(frame), _SLICE)
    )
    header = ",".join(f"{name} {kind}" for name, kind in frame.schema.items()).encode()
    return {"rows": len(frame), "sha256": sha256_of([header, *lines])}


def digest(value: object, *, name: str) -> str:
    """Return the SHA-256 of a value as canonical JSON; raises as ``dumps``."""
    return sha256_of([dumps(value, name=name).encode()])


def dumps(value: object, *, name: str) -> str:
    """Encode a value as canonical JSON: sorted keys, no NaN.

    Raises:
        ReleaseError: ``value`` holds what JSON cannot express: a time, a path, NaN.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=1)
    except (TypeError, ValueError) as error:
        raise ReleaseError(
            f"{name} cannot be written as JSON",
            got=str(error),
            hint="convert times and paths to text, and NaN to null",
        ) from error


def checksums(folder: Path, files: Sequence[str]) -> dict[str, dict[str, int | str]]:
    """Return bytes and SHA-256 of each file below ``folder``."""
    return {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": file_sha256(str(folder / name)),
        }
        for name in sorted(files)
    }


def by_config(files: Mapping[str, Mapping[str, int | str]]) -> dict[str, str]:
    """Return one SHA-256 per config, over the checksums of its files.

    The checksum of ``default`` tells whether two releases hold the same training data. Its rows
    hold neither times nor the pseudonyms of a home, which the votes do.
    """
    sums: dict[str, list[bytes]] = {}
    for name, facts in sorted(files.items()):
        config = next((known for known, prefix in CONFIGS.items() if name.startswith(prefix)), None)
        if config is not None:
            sums.setdefault(config, []).append(f"{name} {facts['sha256']}\n".encode())
    return {config: sha256_of(lines) for config, lines in sums.items()}
