"""Where the server gets pictures and clips from: a folder on its disk, or a bucket."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from warehouse.ids import sha256_of

FIELDS = ("crop", "context", "clip")
"""What of a task's data names a picture or a clip."""

_LOCAL = "/data/local-files/?d="
_IN_BUCKET = re.compile(r"s3://[^/]+/(?:.*/)?media/([^/]+/.+)")
_RESOLVED = "/resolve/?fileuri="
_IN_GUIDE = re.compile(
    r'(?<=src=")(?:/data/local-files/\?d=|/projects/\d+/resolve/\?fileuri=)[^"]+'
)


@dataclass(frozen=True)
class Folder:
    """The server reads files: the media folder of this home, or a mount of it."""

    def address(self, key: str) -> str:
        """What a task says of a media key."""
        return _LOCAL + quote(key)

    def page_address(self, key: str, project_id: int) -> str:
        """What a page of the project says of a media key, outside of any task."""
        return self.address(key)


@dataclass(frozen=True)
class Bucket:
    """The server reads objects of an S3 store.

    Attributes:
        name: of the bucket.
        prefix: of the media in it, with a slash at its end.
        endpoint: URL of the store; None for Amazon's own, or what the server itself is set to.
        key, secret: what the server reads with; both empty where it has a role of its own.
        presign: browsers fetch from the store by addresses that the server signs; else the
            server hands the bytes on.
    """

    name: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    presign: bool = True

    def address(self, key: str) -> str:
        """What a task says of a media key; not quoted, for the server does not unquote."""
        return f"s3://{self.name}/{self.prefix}{key}"

    def page_address(self, key: str, project_id: int) -> str:
        """What a page of the project says of a media key, outside of any task."""
        return self.resolving(self.address(key), project_id)

    def resolving(self, address: str, project_id: int) -> str:
        """Where a member of the project gets an object of any address from."""
        told = base64.urlsafe_b64encode(address.encode()).decode()
        return f"/projects/{project_id}{_RESOLVED}{told}"

    def keys_mark(self, owner: str) -> str:
        """Twelve hex digits that change with the keys and mean nothing without ``owner``."""
        return sha256_of([owner.encode(), self.key.encode(), self.secret.encode()])[:12]


Source = Folder | Bucket

FOLDER = Folder()


def key_of(address: str) -> str | None:
    """The media key behind an address of either kind; None for anything else."""
    if address.startswith(_LOCAL):
        return unquote(address.removeprefix(_LOCAL))
    found = _IN_BUCKET.fullmatch(address)
    return found[1] if found else None


def moved(data: Mapping[str, Any], source: Source) -> dict[str, str]:
    """The fields of a task's data whose address is not of ``source``, as they should be."""
    keys = {name: key_of(str(data[name])) for name in FIELDS if data.get(name)}
    wanted = {name: source.address(key) for name, key in keys.items() if key is not None}
    return {name: address for name, address in wanted.items() if address != data[name]}


def bases(data: Mapping[str, Any], source: Source) -> set[tuple[str, str, str]]:
    """Field, what its address begins with and what it should begin with, of what is to move."""
    found = set()
    for name in moved(data, source):
        key = key_of(str(data[name])) or ""
        old = str(data[name]).removesuffix(key)
        if old != data[name]:
            found.add((name, old, source.address("")))
    return found


def moved_guide(html: str, source: Source, project_id: int) -> str:
    """A guide whose drawings are shown from ``source``; the words stay as they are."""

    def one(found: re.Match[str]) -> str:
        address = found[0]
        if _RESOLVED in address:
            told = address.partition(_RESOLVED)[2]
            address = base64.urlsafe_b64decode(unquote(told)).decode()
        key = key_of(address)
        return source.page_address(key, project_id) if key else found[0]

    return _IN_GUIDE.sub(one, html)
