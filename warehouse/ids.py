"""Readable derived ids; content hashes only at the source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from warehouse.errors import SettingsError

BATCH_PATTERN = re.compile(r"^[A-Za-z0-9._-]{1,100}$")
_CHUNK = 1 << 20


def check_batch(name: str) -> str:
    """Return ``name`` if it can be a batch (a folder, a partition key, a path segment).

    Raises:
        SettingsError: it holds a separator, a space, ``..`` or is empty or too long.
    """
    if not BATCH_PATTERN.fullmatch(name) or ".." in name or name.startswith("."):
        raise SettingsError(
            "a batch name of 1 to 100 letters, digits, dots, dashes or underscores",
            got=repr(name),
            hint="name it with --batch, without '..' and without a leading dot",
        )
    return name


def batch_from(text: str) -> str:
    """Make a batch name out of any file or folder name."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    cleaned = re.sub(r"\.{2,}", ".", cleaned)
    return check_batch(cleaned[:100] or "batch")


def sha256_of(chunks: Iterable[bytes]) -> str:
    """Hex SHA-256 of the concatenated chunks."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def file_sha256(path: str) -> str:
    """Hex SHA-256 of a local file, read in one-megabyte pieces."""
    with open(path, "rb") as handle:
        return sha256_of(iter(lambda: handle.read(_CHUNK), b""))


def video_id(sha256: str) -> str:
    """First 16 hex digits of the SHA-256 of the file's bytes."""
    return sha256[:16]


def unreadable_video_id(uri: str) -> str:
    """Id of a source whose bytes cannot be read; stands on its address instead."""
    return sha256_of([b"unreadable:", uri.encode()])[:16]


def track_id(video: str, number: int) -> str:
    """``<video>-<nnnn>``; numbers count from 0 in order of first appearance."""
    return f"{video}-{number:04d}"


def face_id(track: str, frame: int) -> str:
    """``<track>-<frame>``: the frame is the index in the decoded video, from 0."""
    return f"{track}-{frame}"


def pseudonym(kind: str, secret: str, account: str) -> str:
    """A rater id that cannot be turned back into an account without ``secret``.

    Args:
        kind: ``person``, ``machine``, ``simulated`` or ``self``; kept readable as the prefix.
        secret: the home's own salt.
        account: e-mail or model name.
    """
    return f"{kind}-{sha256_of([secret.encode(), b'|', account.lower().encode()])[:8]}"
