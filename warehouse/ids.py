"""Derive readable ids and hash file contents."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from warehouse.errors import SettingsError

BATCH_PATTERN = re.compile(r"^[A-Za-z0-9._-]{1,100}$")
_CHUNK = 1 << 20


def check_batch(name: str) -> str:
    """Return ``name`` if it can be a batch: a folder and a partition key.

    Raises:
        SettingsError: it holds a separator, a space or ``..``, or is empty or too long.
    """
    if not BATCH_PATTERN.fullmatch(name) or ".." in name or name.startswith("."):
        raise SettingsError(
            "Invalid batch name",
            got=repr(name),
            hint="use 1 to 100 letters, digits, dots, dashes or underscores, without '..' or a "
            "leading dot; --batch sets the name",
        )
    return name


def batch_from(text: str) -> str:
    """Convert any file or folder name to a batch name."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    cleaned = re.sub(r"\.{2,}", ".", cleaned)
    return check_batch(cleaned[:100] or "batch")


def sha256_of(chunks: Iterable[bytes]) -> str:
    """Return the hex SHA-256 of the concatenated chunks."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def file_sha256(path: str) -> str:
    """Return the hex SHA-256 of a local file, read in chunks of 1 MiB."""
    with open(path, "rb") as handle:
        return sha256_of(iter(lambda: handle.read(_CHUNK), b""))


def video_id(sha256: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of the file's bytes."""
    return sha256[:16]


def unreadable_video_id(uri: str) -> str:
    """Return the id of an unreadable source, derived from its address."""
    return sha256_of([b"unreadable:", uri.encode()])[:16]


def track_id(video: str, number: int) -> str:
    """Return ``<video>-<nnnn>``, numbered from 0 by first appearance."""
    return f"{video}-{number:04d}"


def face_id(track: str, frame: int) -> str:
    """Return ``<track>-<frame>``; decoded frames count from 0."""
    return f"{track}-{frame}"


def fold_name(name: str) -> str:
    """Return a name without case, spacing and form of its letters.

    Two spellings of one person's id fold to the same text: composed and decomposed accents,
    width, case, spaces around it, invisible characters.
    """
    seen = "".join(
        letter
        for letter in unicodedata.normalize("NFKC", name)
        if unicodedata.category(letter) not in ("Cf", "Cc") or letter.isspace()
    )
    return unicodedata.normalize("NFKC", " ".join(seen.casefold().split())) or name


def pseudonym(kind: str, secret: str, account: str) -> str:
    """Return a rater id that hides the account without ``secret``.

    Args:
        kind: ``person``, ``machine``, ``simulated`` or ``self``; becomes the prefix.
        secret: the salt of the home.
        account: e-mail or model name.
    """
    return f"{kind}-{sha256_of([secret.encode(), b'|', account.lower().encode()])[:8]}"
