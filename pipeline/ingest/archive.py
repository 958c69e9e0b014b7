"""Unpack ZIP archives of unknown origin safely."""

from __future__ import annotations

import os
import stat
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from warehouse.errors import DiskError, MediaError, system_failure
from warehouse.storage import atomic

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits of an archive.

    Attributes:
        entries: most files; an archive with more is refused as a whole.
        file_bytes, total_bytes: unpacked size.
        ratio: highest compression ratio of an entry; videos and images hardly compress.
    """

    entries: int = 20_000
    file_bytes: int = 50 << 30
    total_bytes: int = 200 << 30
    ratio: int = 200


def is_archive(path: str) -> bool:
    """Return whether a file is unpacked, by name: DOCX and APK are ZIP too."""
    return path.lower().endswith(".zip")


def unpack(
    path: Path, folder: Path, *, limits: ArchiveLimits | None = None
) -> tuple[set[str], dict[str, str]]:
    """Write the files of an archive below ``folder``.

    Each file is written whole or not at all. Refused one by one: names that lead out of the
    folder, links, names no file system takes, encrypted, damaged and repeated entries, and
    decompression bombs.

    Returns:
        Names of the files written, relative to ``folder``, and a reason per refused entry.

    Raises:
        MediaError: the archive cannot be read, or holds too many entries.
    """
    limits = limits or ArchiveLimits()
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpack(archive, folder, limits)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        _check_disk(error)
        raise MediaError(
            "The ZIP archive cannot be read",
            got=f"bad_archive: {_message(error)}",
            hint="pack or copy it again",
        ) from None


def _unpack(
    archive: zipfile.ZipFile, folder: Path, limits: ArchiveLimits
) -> tuple[set[str], dict[str, str]]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > limits.entries:
        raise MediaError(
            f"The archive holds more than {limits.entries} files",
            got=f"too_many: {len(entries)}",
            hint="pack them in several",
        )
    written: set[str] = set()
    refused: dict[str, str] = {}
    left = limits.total_bytes
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        if _is_metadata(name):
            continue
        reason = _refusal(entry, name, written, limits)
        if reason is None:
            try:
                left -= _write(archive, entry, folder / name, most=min(limits.file_bytes, left))
                written.add(name)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, MediaError,
                    OSError, OverflowError) as error:  # fmt: skip
                _check_disk(error)
                reason = f"bad_entry: {_message(error)}; pack it again"
        if reason is not None:
            refused[name] = reason
    return written, refused


def _is_metadata(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts


def _refusal(
    entry: zipfile.ZipInfo, name: str, written: set[str], limits: ArchiveLimits
) -> str | None:
    parts = PurePosixPath(name).parts
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if ".." in parts or name.startswith("/") or ":" in parts[0] or "\0" in name:
        return "unsafe_name: it leads out of the archive; pack it again without paths"
    if max(len(part.encode()) for part in parts) > 255 or len(name) > 1000:
        return "unsafe_name: it is too long for a file; rename it"
    if kind not in (0, stat.S_IFREG):
        return "no_file: a link or a device; pack the file itself"
    if entry.flag_bits & 1:
        return "encrypted: it needs a password; pack it without one"
    if name in written or any(str(parent) in written for parent in PurePosixPath(name).parents):
        return "repeated: the archive holds this name twice; rename one"
    if name.lower().endswith(".zip"):
        return "nested_archive: an archive inside an archive; unpack it first"
    grown = entry.file_size / max(1, entry.compress_size)
    if grown > limits.ratio and entry.file_size > _CHUNK:
        return f"bomb: it would grow {grown:.0f} times; add it as it is"
    if entry.file_size > limits.file_bytes:
        return f"too_large: {entry.file_size} bytes unpacked; add it as it is"
    return None


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, *, most: int) -> int:
    """Write one entry; return its measured size, because headers may lie."""
    size = 0
    with atomic.replace_file(target) as draft:
        with archive.open(entry) as source, open(draft, "wb") as sink:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > most:
                    raise MediaError(
                        "The archive exceeds its limits",
                        got="too_large: more than it may unpack to",
                        hint="pack less",
                    )
                sink.write(chunk)
        # The entry's own time, so that unpacking it again does not look like a change.
        modified = time.mktime((*entry.date_time, 0, 0, -1))
        os.utime(draft, (modified, modified))
    return size


def _check_disk(error: Exception) -> None:
    """Raise a ``DiskError`` if it was the disk that failed."""
    failure = system_failure(error) if isinstance(error, OSError) else None
    if isinstance(failure, DiskError):
        raise failure from error


def _message(error: Exception) -> str:
    if isinstance(error, MediaError):
        return error.got
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
