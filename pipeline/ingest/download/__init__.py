"""Files from elsewhere: HTTP addresses and object stores, fetched whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.ingest.download import http, stores
from pipeline.ingest.download.retry import FetchLimits, name_of
from warehouse.errors import MediaError
from warehouse.storage import atomic

__all__ = ["FetchLimits", "fetch", "is_address", "name_of"]


def is_address(text: str) -> bool:
    """Whether a source is to be fetched and not a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text))


def fetch(
    address: str, folder: Path, marks: dict[str, str], *, limits: FetchLimits | None = None
) -> dict[str, str]:
    """Bring what is at an address into ``folder``; what is unchanged is not fetched again.

    An HTTP address is one file, and a download that broke goes on where it was. Below an address
    of an object store (``s3://…`` and whatever fsspec knows) lie one or many. Files that are gone
    there go here.

    Args:
        marks: file to what told its state at the last call, as returned by it.

    Returns:
        the marks of the files that are there now, by path relative to ``folder``.

    Raises:
        MediaError: it cannot be reached, is not there, or is too large; ``got`` begins with
            ``unreachable``, ``gone``, ``too_large``. What was there before stays.
    """
    limits = limits or FetchLimits()
    scheme = urlsplit(address).scheme.lower()
    if scheme in ("http", "https"):
        found = http.download(address, folder, marks, limits)
    elif scheme in ("file", "local") or "::" in address:
        raise MediaError(
            "an address to fetch from",
            got=f"unreachable: {scheme}: is a path",
            hint="name the path",
        )
    else:
        found = stores.copy(address, folder, marks, limits)
    for stale in marks.keys() - found.keys():
        atomic.remove(folder / stale)
    return found
