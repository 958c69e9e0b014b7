"""Compare the files of a version with its manifest before they are read.

A file is hashed once per process: the result is kept with the file's size, times and inode, and
counts while these stay. The manifest itself is compared with the table ``releases``.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256
from warehouse.releases import manifest
from warehouse.storage import tables
from warehouse.storage.home import Home

Identity = tuple[int, ...]

_known: dict[tuple[str, Identity], str] = {}


def verify(path: str | Path) -> list[str]:
    """List differences from the manifest, one sentence per file.

    Raises:
        ReleaseError: there is no version at ``path``, or its manifest is damaged.
    """
    folder = Path(path)
    contents = manifest.read(folder)
    return _problems(folder, contents) + _added(folder, contents)


def check(
    path: Path, *prefixes: str, complete: bool = False, skip: str | None = None
) -> dict[str, Any]:
    """Return the manifest of an unchanged version.

    Files that no reader opens, such as ``.DS_Store``, may lie beside those of the version.

    Args:
        prefixes: paths below the version begin with one of these; other files are not read.
        complete: the other files must be there with their sizes all the same.
        skip: why the checksums are not compared; it is shown in a warning. Sizes and names are
            compared all the same.

    Raises:
        ReleaseError: a file was changed, added or removed, or the manifest is not the one that was
            recorded when the version was built.
    """
    contents = manifest.read(path)
    if skip is not None:
        if not skip.strip():
            raise ReleaseError(
                "Checksums are skipped without a reason", got=repr(skip), hint="give the reason"
            )
        text = f"Checksums of {path.parent.name} {path.name} are not compared: {skip}"
        warnings.warn(text, stacklevel=3)
    found = _problems(path, contents, hashes=False) if complete else []
    for prefix in prefixes:
        found += _problems(path, contents, prefix, hashes=skip is None)
    for prefix in ("",) if complete else prefixes:
        found += [text for text in _added(path, contents, prefix) if ".parquet " in text]
    if found:
        raise ReleaseError(
            f"{path.parent.name} {path.name} was changed after it was built",
            got="; ".join([*dict.fromkeys(found)][:3]),
            hint="restore the files from a copy, or build a new version",
        )
    return contents


def files(path: Path, contents: dict[str, Any], prefix: str) -> list[Path]:
    """Return the files of a version that its manifest lists, sorted."""
    return [path / name for name in sorted(contents["files"]) if name.startswith(prefix)]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, computed once while the file stays."""
    key = (str(path), identity(path))
    if key not in _known:
        _known[key] = file_sha256(str(path))
    return _known[key]


def identity(path: Path) -> Identity:
    """Return what a write changes; the time of change cannot be set back."""
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _problems(
    folder: Path, contents: dict[str, Any], prefix: str = "", *, hashes: bool = True
) -> list[str]:
    found = [wrong] if (wrong := _wrong_manifest(folder, contents)) else []
    for name, known in sorted(contents["files"].items()):
        target = folder / name
        if not name.startswith(prefix):
            continue
        if not target.is_file():
            found.append(f"{name} is missing")
        elif (size := target.stat().st_size) != known["bytes"]:
            found.append(f"{name} has {size} bytes instead of {known['bytes']}")
        elif hashes and checksum(target) != known["sha256"]:
            found.append(f"{name} was changed")
    return found


def _added(folder: Path, contents: dict[str, Any], prefix: str = "") -> list[str]:
    below = folder / prefix.rpartition("/")[0]
    on_disk = {str(item.relative_to(folder)) for item in below.rglob("*") if item.is_file()}
    added = on_disk - contents["files"].keys() - {manifest.FILE}
    return [f"{name} was added" for name in sorted(added) if name.startswith(prefix)]


def _wrong_manifest(folder: Path, contents: dict[str, Any]) -> str | None:
    """Compare a manifest in its home with the row that its build wrote."""
    root = folder.parents[2] if len(folder.parents) > 2 else None
    if root is None or folder.parents[1].name != "releases":
        return None
    label = contents.get("label")
    if label is not None and label != folder.name:
        return f"{manifest.FILE} is that of {label}"
    rows = tables.read(Home(root), "releases").filter(
        pl.col("name") == folder.parent.name,
        pl.lit(folder.name)
        == pl.format("v{}", "version")
        + pl.when(pl.col("patch").fill_null(0) > 0)
        .then(pl.format(".{}", "patch"))
        .otherwise(pl.lit("")),
    )
    recorded = rows["fingerprint"].drop_nulls().to_list()
    if recorded and checksum(folder / manifest.FILE) not in recorded:
        return f"{manifest.FILE} is not the one that was recorded when it was built"
    return None
