"""Name, write and publish the files of an export."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from warehouse.ids import file_sha256, sha256_of
from warehouse.releases import manifest
from warehouse.releases.layouts import pixels
from warehouse.storage import atomic

JOURNAL = ".progress"
"""File of a draft that lists the finished row groups."""

FORMAT = 2
"""Raise it when a layout changes: an interrupted export of an earlier one is not continued."""

_SAFE = re.compile(r"[^A-Za-z0-9_-]+")


def cell(value: Any) -> Any:
    """Return a value as it is written into a text file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return value


def without_nan(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def array_of(column: pl.Series, *shape: int) -> np.ndarray:
    """Return float64[n, *shape] of a column of vectors; NaN where it is null."""
    found: np.ndarray = column.cast(pl.Array(pl.Float64, shape)).to_numpy()
    return found


def encoded(value: Any, *, depth: int = 2) -> str:
    """Return JSON with a line per entry of the outer ``depth`` objects.

    The encoder in C cannot indent, and that in Python takes most of an export. NaN becomes null.
    """
    if depth and value and isinstance(value, dict):
        pairs = (f"{_one(str(key))}: {encoded(one, depth=depth - 1)}" for key, one in value.items())
        return "{\n" + ",\n".join(pairs) + "\n}"
    return _one(value)


def _one(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(without_nan(value), ensure_ascii=False, allow_nan=False)


def safe(name: str) -> str:
    """Return a name of letters, digits, dashes and underscores."""
    return _SAFE.sub("-", name).strip("-") or "x"


def with_stems(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``stem``: the face id as a file name, unique in any case."""
    seen: dict[str, int] = {}
    stems = []
    for face in rows["face_id"]:
        stem = safe(face)
        key = stem.lower()
        seen[key] = seen.get(key, 0) + 1
        stems.append(stem if seen[key] == 1 else f"{stem}-{seen[key]}")
    return rows.with_columns(stem=pl.Series(stems, dtype=pl.String))


def read_columns(file: Path) -> pl.DataFrame:
    """Return the columns of a file; ``suffix`` stands for the pixels."""
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    names = [name for name in opened.schema_arrow.names if name != "image"]
    table = opened.read(columns=[*names, "image.path"])
    found = pl.DataFrame(pl.from_arrow(table))
    suffix = pl.col("image").struct.field("path").str.extract(r"(\.[^.]+)$")
    return found.with_columns(suffix=suffix).drop("image")


def write_picture(
    data: Any, paths: Sequence[str], *, suffix: str, size: int | None, gray: bool
) -> None:
    """Write the bytes as they are where type and size allow, else converted.

    Args:
        paths: the file, and further ones that become links to it.
    """
    first = paths[0]
    wanted = os.path.splitext(first)[1]
    data = pixels.convert(data, suffix, wanted, size=size, gray=gray)
    with open(first, "wb") as handle:
        handle.write(data)
    for path in paths[1:]:
        with suppress(FileNotFoundError):
            os.unlink(path)
        try:
            os.link(first, path)
        except OSError:
            shutil.copyfile(first, path)


def open_draft(
    target: Path, source: Path, options: Mapping[str, Any], labels: Mapping[str, Any]
) -> Path:
    """Return the draft of an export, that of an interrupted equal one."""
    request = json.dumps([options, labels, FORMAT], sort_keys=True)
    key = sha256_of([file_sha256(str(source / manifest.FILE)).encode(), request.encode()])[:12]
    draft = target.parent / f".{target.name}-{key}"
    for stale in target.parent.glob(f".{target.name}-????????????"):
        if stale != draft and (stale / JOURNAL).exists():
            shutil.rmtree(stale, ignore_errors=True)
    draft.mkdir(parents=True, exist_ok=True)
    (draft / JOURNAL).touch()
    return draft


def publish(draft: Path, target: Path) -> None:
    """Rename a finished draft to its target."""
    if target.is_dir():
        target.rmdir()
    atomic.publish(draft, target)
