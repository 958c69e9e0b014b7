"""Download files over HTTP and, through fsspec, from object stores.

A file is replaced whole or not at all, and one that is unchanged at its origin is not fetched
again. HTTP uses httpx: fsspec's HTTP file system sends neither ``If-None-Match`` nor
``If-Range``, so it can neither skip an unchanged file nor safely resume a broken download.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from warehouse.errors import DiskError, MediaError, system_failure
from warehouse.storage import atomic
from warehouse.storage.downloads import redact_url

if TYPE_CHECKING:
    import httpx

Result = TypeVar("Result")

_CHUNK = 1 << 20
_ETAG_FIELDS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
"""Where the file systems of fsspec say which version of a file they hold."""


@dataclass(frozen=True)
class FetchLimits:
    """Limits and retry policy of downloads.

    Attributes:
        file_bytes: largest file.
        files: most files below one address of an object store.
        attempts: attempts per file, with pauses of ``pause_s`` to 16 times that.
        timeout_s: longest time without a byte.
        at_once: files fetched in parallel.
        stopped: set to cancel; a running download ends at its next chunk.
    """

    file_bytes: int = 50 << 30
    files: int = 20_000
    attempts: int = 5
    pause_s: float = 0.5
    timeout_s: float = 30.0
    at_once: int = 4
    stopped: threading.Event = field(default_factory=threading.Event, compare=False)


class TransientError(Exception):
    """A failure that another attempt may not meet."""


def is_address(text: str) -> bool:
    """Return whether a source is an address to fetch, not a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text))


def name_of(address: str) -> str:
    """Return a safe file name for the file at an address."""
    last = unquote(urlsplit(address).path).rstrip("/").rpartition("/")[2]
    cleaned = re.sub(r"[^\w .()+-]", "_", last).strip(" .")
    return cleaned[-120:] or "download"


def fetch(
    address: str, folder: Path, etags: dict[str, str], *, limits: FetchLimits | None = None
) -> dict[str, str]:
    """Fetch the file or files at an address into ``folder``.

    An HTTP address is one file; a broken download resumes. An address of an object store
    (``s3://…`` and whatever fsspec supports) is one file or all files below it. Files that no
    longer exist at the address are removed from ``folder``.

    Args:
        etags: the return value of the last call, to skip unchanged files; else empty.

    Returns:
        The version (ETag or time) of each file, by path relative to ``folder``.

    Raises:
        MediaError: the address cannot be reached, has no file, or the file is too large;
            ``got`` begins with ``unreachable``, ``gone`` or ``too_large``. Files of earlier
            calls stay.
    """
    limits = limits or FetchLimits()
    scheme = urlsplit(address).scheme.lower()
    if scheme in ("http", "https"):
        found = _fetch_http(address, folder, etags, limits)
    elif scheme in ("file", "local") or "::" in address:
        raise MediaError(
            "The source is not an address",
            got=f"unreachable: {scheme}: is a path",
            hint="name the path",
        )
    else:
        found = _fetch_store(address, folder, etags, limits)
    for stale in etags.keys() - found.keys():
        atomic.remove(folder / stale)
    return found


def _retry(limits: FetchLimits, address: str, attempt: Callable[[], Result]) -> Result:
    """Call ``attempt`` with growing pauses while it raises TransientError."""
    from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt
    from tenacity.nap import sleep_using_event
    from tenacity.stop import stop_when_event_set
    from tenacity.wait import wait_exponential

    policy = Retrying(
        sleep=sleep_using_event(limits.stopped),
        stop=stop_after_attempt(limits.attempts) | stop_when_event_set(limits.stopped),
        wait=wait_exponential(multiplier=limits.pause_s, max=16 * limits.pause_s),
        retry=retry_if_exception_type(TransientError),
    )
    try:
        return policy(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise _failed(address, f"unreachable: {last}, {limits.attempts} times") from None


def _failed(
    address: str, got: str, *, hint: str = "check the address, then ingest it again"
) -> MediaError:
    return MediaError(f"Cannot fetch {redact_url(address)}", got=got, hint=hint)


def _check_limits(size: int, limits: FetchLimits) -> None:
    if limits.stopped.is_set():
        raise MediaError(
            "The download was cancelled", got="unreachable: it was stopped", hint="ingest it again"
        )
    if size > limits.file_bytes:
        raise MediaError(
            f"The file exceeds the limit of {limits.file_bytes} bytes",
            got="too_large: more than that",
            hint="fetch it by hand",
        )


def _fetch_http(
    address: str, folder: Path, etags: dict[str, str], limits: FetchLimits
) -> dict[str, str]:
    import httpx

    name = name_of(address)
    known = (etags.get(name) or None) if (folder / name).is_file() else None
    timeout = httpx.Timeout(limits.timeout_s, connect=10.0)
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        attempt = partial(_download, client, address, folder / name, known, limits)
        return {name: _retry(limits, address, attempt)}


def _download(
    client: httpx.Client, address: str, target: Path, known: str | None, limits: FetchLimits
) -> str:
    """Request the file once; return the ETag or time of ``target``."""
    import httpx

    part = target.with_name(f".part-{target.name}")
    etag_file = part.with_name(f"{part.name}.mark")
    half = part.stat().st_size if part.exists() and etag_file.exists() else 0
    # No compression: lengths and ranges must count the bytes of the file itself.
    headers = {"Accept-Encoding": "identity"}
    if half:
        headers |= {"Range": f"bytes={half}-", "If-Range": etag_file.read_text()}
    elif known is not None:
        headers["If-None-Match" if known.startswith(('"', "W/")) else "If-Modified-Since"] = known
    try:
        with client.stream("GET", address, headers=headers) as response:
            if response.status_code == 304 and known is not None:
                return known
            if response.status_code == 416:
                # The partial file does not fit the file of the server: start from byte 0.
                etag_file.unlink(missing_ok=True)
            _check_status(response)
            resumed = response.status_code == 206
            etag = response.headers.get("etag") or response.headers.get("last-modified") or ""
            target.parent.mkdir(parents=True, exist_ok=True)
            # Only a strong ETag proves that the rest belongs to the first half.
            etag_file.unlink(missing_ok=True)
            if etag and not etag.startswith("W/"):
                etag_file.write_text(etag)
            _receive(response, part, start=half if resumed else 0, limits=limits)
    except httpx.TransportError as error:
        raise TransientError(type(error).__name__) from error
    except httpx.HTTPError as error:
        raise _failed(address, f"unreachable: {type(error).__name__}") from error
    etag_file.unlink(missing_ok=True)
    with atomic.replace_file(target) as draft:
        os.replace(part, draft)
    return etag


def _receive(response: httpx.Response, part: Path, *, start: int, limits: FetchLimits) -> None:
    length = response.headers.get("content-length")
    whole = start + int(length) if length and length.isdigit() else None
    _check_limits(whole or 0, limits)
    size = start
    with open(part, "r+b" if start else "wb") as sink:
        sink.seek(start)
        sink.truncate()
        for chunk in response.iter_raw(_CHUNK):
            size += len(chunk)
            _check_limits(size, limits)
            sink.write(chunk)
    if whole is not None and size != whole:
        raise TransientError(f"{size} of {whole} bytes received")


def _check_status(response: httpx.Response) -> None:
    code = response.status_code
    if code in (408, 416, 425, 429) or code >= 500:
        raise TransientError(f"HTTP {code}")
    if code in (401, 403):
        raise _failed(
            str(response.request.url), f"unreachable: HTTP {code}",
            hint="ingest the address again with its login or token, which is never stored",
        )  # fmt: skip
    if code not in (200, 206):
        word = "gone" if code in (404, 410) else "unreachable"
        raise _failed(str(response.request.url), f"{word}: HTTP {code}")


def _fetch_store(
    address: str, folder: Path, etags: dict[str, str], limits: FetchLimits
) -> dict[str, str]:
    import fsspec

    try:
        files, base = fsspec.core.url_to_fs(address, skip_instance_cache=True)
    except (ValueError, ImportError) as error:
        raise _failed(address, f"unreachable: {error}") from None
    listed = _retry(limits, address, partial(_list_store, files, base, address, limits))
    changed = []
    for name, (key, size, etag) in sorted(listed.items()):
        _check_limits(size, limits)
        if etags.get(name) != etag or not (folder / name).is_file():
            changed.append(partial(_copy_object, files, key, folder / name, limits))
    with ThreadPoolExecutor(limits.at_once) as pool:
        futures = [pool.submit(_retry, limits, address, attempt) for attempt in changed]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            # One failed file fails the address: its files are not the ones that were listed.
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                limits.stopped.set()
            raise
    return {name: etag for name, (_, _, etag) in sorted(listed.items())}


def _list_store(
    files: Any, base: str, address: str, limits: FetchLimits
) -> dict[str, tuple[str, int, str]]:
    """Return key, size and version per file at or below an address."""
    try:
        files.invalidate_cache()
        if files.isfile(base):
            listed = {name_of(address): files.info(base)}
        else:
            below = files.find(base, detail=True)
            listed = {
                os.path.relpath(key, base): info
                for key, info in below.items()
                if info.get("type", "file") == "file" and not key.endswith("/")
            }
    except FileNotFoundError:
        listed = {}
    except Exception as error:  # each store raises its own types
        raise _classified(error) from error
    # A key is free text: it must neither leave the folder nor name a hidden file.
    safe = {
        name: info
        for name, info in listed.items()
        if not any(part.startswith(".") for part in PurePosixPath(name).parts)
        and not PurePosixPath(name).is_absolute()
    }
    if not safe:
        raise _failed(address, "gone: nothing is there")
    if len(safe) > limits.files:
        raise _failed(address, f"too_large: {len(safe)} files, at most {limits.files}")
    return {
        name: (
            str(info["name"]),
            int(info.get("size") or 0),
            f"{info.get('size')} "
            + next((str(info[key]) for key in _ETAG_FIELDS if info.get(key)), ""),
        )
        for name, info in safe.items()
    }


def _copy_object(files: Any, key: str, target: Path, limits: FetchLimits) -> None:
    try:
        with atomic.replace_file(target) as draft:
            size = 0
            with files.open(key, "rb") as source, open(draft, "wb") as sink:
                while chunk := source.read(_CHUNK):
                    size += len(chunk)
                    _check_limits(size, limits)
                    sink.write(chunk)
    except MediaError:
        raise
    except Exception as error:
        failure = system_failure(error)
        if isinstance(failure, DiskError):
            raise failure from error
        raise _classified(error) from error


def _classified(error: Exception) -> Exception:
    """Turn an error of a store into a MediaError or a TransientError."""
    kind = type(error).__name__
    if isinstance(error, PermissionError) or "Credentials" in kind:
        return MediaError(
            "The store refuses access",
            got=f"unreachable: {kind}",
            hint="give credentials as its own tools take them (AWS_* variables, a profile)",
        )
    if isinstance(error, FileNotFoundError):
        return MediaError(
            "The file does not exist", got="gone: no such key", hint="check the address"
        )
    return TransientError(kind)
