"""Where a Label Studio is and how we sign in, kept where only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from warehouse.errors import StudioError
from warehouse.masking import mask
from warehouse.storage import atomic

LOOPBACK = ("127.0.0.1", "localhost", "::1")

EMAIL = "pipeline@risorius.test"
"""The pipeline's own account on a local server."""


@dataclass(frozen=True)
class Address:
    """Where a Label Studio is, and how we sign in.

    Attributes:
        pid: the local server's process; None for a server that somebody else runs.
        started: this very call started it.
    """

    url: str
    token: str = field(repr=False)
    pid: int | None = None
    started: bool = False

    @property
    def warning(self) -> str | None:
        """One sentence where others may listen in on faces and token, else None."""
        parts = urlsplit(self.url)
        if parts.scheme == "https" or parts.hostname in LOOPBACK:
            return None
        return (
            f"warning: faces and access token travel unencrypted to {parts.hostname}; "
            "put Label Studio behind https"
        )


@dataclass(frozen=True)
class Credentials:
    """The pipeline's own account on the local server."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def external(url: str, key: str) -> Address:
    """A server that somebody else runs.

    Raises:
        StudioError: the URL is none, or the key is empty.
    """
    if not url.startswith(("http://", "https://")) or not key.strip():
        raise StudioError(
            "the address and an access token of a Label Studio",
            got=f"address {mask(url)!r}, {'a' if key.strip() else 'no'} token",
            hint="set LABEL_STUDIO_URL=https://… and LABEL_STUDIO_API_KEY to an access token",
        )
    return Address(url=url.rstrip("/"), token=key.strip())


def credentials(studio_dir: Path) -> Credentials:
    """The pipeline's own account, made once and kept in ``credentials.json`` for its owner only."""
    path = studio_dir / "credentials.json"
    if not path.exists():
        made = {
            "email": EMAIL,
            "password": secrets.token_urlsafe(18),
            "token": secrets.token_hex(20),
        }
        write_private(path, made)
    return Credentials(**json.loads(path.read_text()))


def write_private(path: Path, content: object) -> None:
    """Write JSON that only its owner can read, whole or not at all."""
    with atomic.replace_file(path) as draft:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w") as out:
            json.dump(content, out, indent=1)
