"""Read and write the objects below one URL through fsspec, with retries.

An object store keeps whole objects: every reader sees an upload completely or not at all.
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

Result = TypeVar("Result")

_ATTEMPTS = 8
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")


class StoreError(RisoriusError):
    """The object store is unreachable, denies access, or holds unusable data."""


def url_of(text: str) -> str | None:
    """Return ``text`` as the URL of an object store; None for a local path.

    One slash after the scheme is enough, because ``pathlib`` drops the second one.
    """
    match = _URL.match(text)
    return f"{match[1]}://{text[match.end() :].strip('/')}" if match else None


@dataclass(frozen=True)
class S3Location:
    """Address of an S3 prefix for another program; holds no keys.

    Attributes:
        name: bucket.
        prefix: of the data directory in the bucket; empty or ending with a slash.
        endpoint: URL of the store; None for Amazon.
    """

    name: str
    prefix: str
    endpoint: str | None
    region: str


class ObjectStore:
    """The objects below one URL; keys are relative to it.

    Args:
        url: in fsspec's form, ``s3://bucket/prefix``. The store's own library finds credentials
            and endpoint (``AWS_*`` variables, profiles, roles).

    Raises:
        SettingsError: the scheme needs a package that is not installed, or the URL holds a
            password.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise SettingsError(
                "The URL of the object store holds credentials",
                got=f"{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile",
            )
        try:
            self._files, self._base = fsspec.core.url_to_fs(url, **_options(parts.scheme))
        except (ValueError, ImportError) as error:
            raise SettingsError(
                "The URL of the home cannot be opened",
                got=f"{url} ({error})",
                hint="install risorius[s3] for s3://, or name a folder with --home",
            ) from None
        if hasattr(self._files, "retries"):
            # Disable s3fs's own retries; retrying at two layers multiplies attempts.
            self._files.retries = 1
        self.url = url

    def list(self, prefix: str = "") -> dict[str, str]:
        """Return key to ETag of every object below the folder ``prefix``."""
        root = f"{self._base}/{prefix}".rstrip("/")
        try:
            found = self._retry(lambda: self._files.find(root, detail=True))
        except FileNotFoundError:
            raise self._missing_bucket() from None
        start = len(self._base) + 1
        return {
            name[start:]: _etag(info) for name, info in found.items() if name.startswith(f"{root}/")
        }

    def exists(self, key: str) -> bool:
        return bool(self._retry(lambda: self._files.exists(self._path(key))))

    def download(self, key: str, path: Path) -> bool:
        """Copy an object to a file; return False if the object does not exist."""
        try:
            self._retry(lambda: self._files.get_file(self._path(key), str(path)))
        except FileNotFoundError:
            return False
        return True

    def upload(self, path: Path, key: str) -> None:
        """Copy a file to an object, atomically."""
        try:
            self._retry(lambda: self._files.put_file(str(path), self._path(key)))
        except FileNotFoundError:
            raise self._missing_bucket() from None

    def create(self, key: str, data: bytes) -> bool:
        """Create an object; return False if it exists with other bytes."""
        try:
            self._retry(lambda: self._files.pipe_file(self._path(key), data, mode="create"))
        except FileNotFoundError:
            raise self._missing_bucket() from None
        except FileExistsError:
            # This call may have created it: its first response may have been lost (1 of 100
            # calls at 10 % injected failures).
            return self.read(key) == data
        return True

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object; None if it does not exist."""
        try:
            return bytes(self._retry(lambda: self._files.cat_file(self._path(key))))
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Delete an object; a missing object is no error."""
        try:
            self._retry(lambda: self._files.rm_file(self._path(key)))
        except FileNotFoundError:
            return

    def s3_location(self) -> S3Location | None:
        """Return bucket, prefix, endpoint and region; None if the store is not S3."""
        if "s3" not in self._files.protocol:
            return None
        name, _, prefix = self._base.partition("/")
        meta = self._retry(lambda: self._files.s3.meta)
        host = urlsplit(meta.endpoint_url).hostname or ""
        amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return S3Location(
            name=name,
            prefix=f"{prefix}/" if prefix else "",
            endpoint=None if amazon else meta.endpoint_url,
            region=meta.region_name,
        )

    def _missing_bucket(self) -> StoreError:
        return StoreError(
            "The bucket does not exist", got=self.url, hint="create it, or name another one"
        )

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _retry(self, call: Callable[[], Result]) -> Result:
        """Call the store; retry transient errors with exponential backoff."""
        import tenacity

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        )
        try:
            return retrying(call)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            raise StoreError(
                f"The object store at {self.url} failed",
                got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else '-'}",
                hint="check the address, the keys (AWS_*) and the network, then run the same "
                "command again; partial uploads do not count",
            ) from None


def expected_etag(path: Path) -> str:
    """Return the MD5, in most cases the ETag on S3; else refetch once."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _is_transient(error: BaseException) -> bool:
    lasting = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, ValueError)
    names = ("NoCredentials", "PartialCredentials", "ParamValidation", "ProfileNotFound")
    return (
        isinstance(error, Exception)
        and not isinstance(error, lasting)
        and not type(error).__name__.startswith(names)
    )


def _options(scheme: str) -> dict[str, Any]:
    # A cached fsspec instance may have other keys or another endpoint.
    options: dict[str, Any] = {"skip_instance_cache": True}
    if scheme in ("s3", "s3a"):
        # A cached listing would hide what another process wrote.
        options["use_listings_cache"] = False
        retries = {"mode": "standard", "max_attempts": 2}
        options["config_kwargs"] = {"retries": retries, "connect_timeout": 10}
    return options


def _etag(info: dict[str, Any]) -> str:
    """Return the ETag; for stores without one, size and time."""
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if etag:
        return str(etag).strip('"')
    return f"{info.get('size')}-{info.get('mtime') or info.get('created') or ''}"
