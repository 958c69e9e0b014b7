"""One prefix of an object store, through fsspec: list, get, put, create, delete, each tried again.

A bucket keeps whole objects: a put is seen whole or not at all, and by everybody at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from warehouse.errors import RisoriusError, SettingsError

Answer = TypeVar("Answer")

_ATTEMPTS = 8
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")


class StoreError(RisoriusError):
    """The object store is away, refuses us, or holds what we cannot use."""


def url_of(text: str) -> str | None:
    """``text`` as a URL of a store, or None for a local path.

    One slash is enough: a URL that went through ``pathlib`` has lost the other.
    """
    match = _URL.match(text)
    return f"{match[1]}://{text[match.end() :].strip('/')}" if match else None


@dataclass(frozen=True)
class Place:
    """Where a prefix of an S3 store is, for another program that reads from it; no keys.

    Attributes:
        name: of the bucket.
        prefix: of the home in it, empty or with a slash at its end.
        endpoint: URL of the store; None for Amazon's own.
    """

    name: str
    prefix: str
    endpoint: str | None
    region: str


class Bucket:
    """The objects below one URL; keys are relative to it.

    Args:
        url: as fsspec writes it, ``s3://bucket/prefix``. Credentials and the endpoint come from
            where the store's own library looks for them (``AWS_*`` variables, profiles, roles).

    Raises:
        SettingsError: the scheme needs a package that is not there, or the URL holds a password.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise SettingsError(
                "the URL of a store without keys in it",
                got=f"{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}",
                hint="give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a profile",
            )
        try:
            self._files, self._base = fsspec.core.url_to_fs(url, **_options(parts.scheme))
        except (ValueError, ImportError) as error:
            raise SettingsError(
                "a local folder or the URL of an object store as home",
                got=f"{url} ({error})",
                hint="install risorius[s3] for s3://, or name a folder with --home",
            ) from None
        if hasattr(self._files, "retries"):
            # Of three layers that try again, one is enough: tries multiply.
            self._files.retries = 1
        self.url = url

    def list(self, prefix: str = "") -> dict[str, str]:
        """Key to mark of every object below ``prefix``, a folder; a mark changes with the bytes."""
        root = f"{self._base}/{prefix}".rstrip("/")
        try:
            found = self._again(lambda: self._files.find(root, detail=True))
        except FileNotFoundError:
            raise self._no_bucket() from None
        at = len(self._base) + 1
        return {
            name[at:]: _mark(info) for name, info in found.items() if name.startswith(f"{root}/")
        }

    def has(self, key: str) -> bool:
        return bool(self._again(lambda: self._files.exists(self._path(key))))

    def get(self, key: str, path: Path) -> bool:
        """Copy an object to a file; False when there is none."""
        try:
            self._again(lambda: self._files.get_file(self._path(key), str(path)))
        except FileNotFoundError:
            return False
        return True

    def put(self, path: Path, key: str) -> None:
        """Copy a file to an object, whole or not at all."""
        try:
            self._again(lambda: self._files.put_file(str(path), self._path(key)))
        except FileNotFoundError:
            raise self._no_bucket() from None

    def create(self, key: str, data: bytes) -> bool:
        """Make an object; False when there is one, which stays as it is."""
        try:
            self._again(lambda: self._files.pipe_file(self._path(key), data, mode="create"))
        except FileNotFoundError:
            raise self._no_bucket() from None
        except FileExistsError:
            # Perhaps by this very call, whose first answer was lost.
            return self.read(key) == data
        return True

    def read(self, key: str) -> bytes | None:
        """The bytes of a small object; None when there is none."""
        try:
            return self._again(lambda: self._files.cat_file(self._path(key)))
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        try:
            self._again(lambda: self._files.rm_file(self._path(key)))
        except FileNotFoundError:
            return

    def place(self) -> Place | None:
        """Where it is, as this machine's settings have it; None for a store that is not S3."""
        if "s3" not in self._files.protocol:
            return None
        name, _, prefix = self._base.partition("/")
        told = self._again(lambda: self._files.s3.meta)
        host = urlsplit(told.endpoint_url).hostname or ""
        amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return Place(
            name=name,
            prefix=f"{prefix}/" if prefix else "",
            endpoint=None if amazon else told.endpoint_url,
            region=told.region_name,
        )

    def _no_bucket(self) -> StoreError:
        return StoreError(
            f"a bucket for {self.url}", got="none of that name", hint="make it, or name another"
        )

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _again(self, call: Callable[[], Answer]) -> Answer:
        import tenacity

        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_attempt(_ATTEMPTS),
                wait=tenacity.wait_exponential_jitter(multiplier=_PAUSE_S, max=_LONGEST_PAUSE_S),
                retry=tenacity.retry_if_exception(_may_pass),
                reraise=True,
            ):
                with attempt:
                    return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            raise StoreError(
                f"the object store to answer at {self.url}",
                got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else '-'}",
                hint="check the address, the keys (AWS_*) and the network; nothing half written "
                "counts, so run the same command again",
            ) from None
        raise AssertionError("tenacity re-raises")


def _may_pass(error: BaseException) -> bool:
    lasting = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, ValueError)
    words = ("NoCredentials", "PartialCredentials", "ParamValidation", "ProfileNotFound")
    return (
        isinstance(error, Exception)
        and not isinstance(error, lasting)
        and not type(error).__name__.startswith(words)
    )


def _options(scheme: str) -> dict[str, Any]:
    # An instance that fsspec kept may be of other keys, or of another endpoint.
    fresh = {"skip_instance_cache": True}
    if scheme not in ("s3", "s3a"):
        return fresh
    # Listings kept by one process would hide what another one wrote.
    patience = {"retries": {"mode": "standard", "max_attempts": 2}, "connect_timeout": 10}
    return fresh | {"use_listings_cache": False, "config_kwargs": patience}


def mark_of(path: Path) -> str:
    """The mark that a file will most likely have once it was put; if not, it is fetched once."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _mark(info: dict[str, Any]) -> str:
    """The MD5 on S3 for what was put in one piece without a key of its own, else any word that
    changes with the bytes."""
    told = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if told:
        return str(told).strip('"')
    return f"{info.get('size')}-{info.get('mtime') or info.get('created') or ''}"
