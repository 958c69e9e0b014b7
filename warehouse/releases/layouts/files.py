"""Name, write and publish the files of an export."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.ids import file_sha256, sha256_of
from warehouse.releases import manifest
from warehouse.releases.layouts import pixels
from warehouse.storage import atomic

JOURNAL = ".progress"
"""File of a draft that lists the finished row groups."""

FORMAT = 1
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
    data: Any, paths: list[Path], *, suffix: str, size: int | None, gray: bool
) -> None:
    first = paths[0]
    if size is None and not gray and pixels.same_type(suffix, first.suffix):
        with open(first, "wb") as handle:
            handle.write(data)
    else:
        first.write_bytes(pixels.convert(data, first.suffix, size=size, gray=gray))
    for path in paths[1:]:
        path.unlink(missing_ok=True)
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
