"""Files from elsewhere: HTTP addresses and object stores, fetched whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from warehouse import atomic
from warehouse.arrivals import shown
from warehouse.errors import MediaError

if TYPE_CHECKING:
    import httpx

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FetchLimits:
    """What may be fetched, and how hard it is tried.

    Attributes:
        file_bytes: of one file.
        files: below one address of an object store.
        attempts: per file, with pauses of ``pause_s`` to 16 times that.
        timeout_s: without a single byte.
    """

    file_bytes: int = 50 << 30
    files: int = 20_000
    attempts: int = 5
    pause_s: float = 0.5
    timeout_s: float = 30.0


class _PassingError(Exception):
    """A failure that may pass: tried again."""


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
        found = _http(address, folder, marks, limits)
    elif scheme in ("file", "local") or "::" in address:
        raise MediaError(
            "an address to fetch from",
            got=f"unreachable: {scheme}: is a path",
            mend="name the path",
        )
    else:
        found = _store(address, folder, marks, limits)
    for stale in marks.keys() - found.keys():
        atomic.remove(folder / stale)
    return found


def name_of(address: str) -> str:
    """A file name for what is at an address."""
    last = unquote(urlsplit(address).path).rstrip("/").rpartition("/")[2]
    cleaned = re.sub(r"[^\w .()+-]", "_", last).strip(" .")
    return cleaned[-120:] or "download"


def _http(address: str, folder: Path, marks: dict[str, str], limits: FetchLimits) -> dict[str, str]:
    import httpx

    name = name_of(address)
    known = (marks.get(name) or None) if (folder / name).is_file() else None
    timeout = httpx.Timeout(limits.timeout_s, connect=10.0)
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        return {
            name: _again(
                limits, address, lambda: _download(client, address, folder / name, known, limits)
            )
        }


def _download(
    client: httpx.Client, address: str, target: Path, known: str | None, limits: FetchLimits
) -> str:
    """One attempt; returns the mark of the file that is there now."""
    import httpx

    part = target.with_name(f".part-{target.name}")
    mark_file = part.with_name(f"{part.name}.mark")
    half = part.stat().st_size if part.exists() and mark_file.exists() else 0
    # The bytes as they lie there: a length, or a range, of compressed ones would mean nothing.
    headers = {"Accept-Encoding": "identity"}
    if half:
        headers |= {"Range": f"bytes={half}-", "If-Range": mark_file.read_text()}
    elif known is not None:
        headers["If-None-Match" if known.startswith(('"', "W/")) else "If-Modified-Since"] = known
    try:
        with client.stream("GET", address, headers=headers) as answer:
            if answer.status_code == 304 and known is not None:
                return known
            if answer.status_code == 416:
                # The half that is here fits nothing there: begin anew.
                mark_file.unlink(missing_ok=True)
            _refuse_status(answer)
            goes_on = answer.status_code == 206
            mark = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
            target.parent.mkdir(parents=True, exist_ok=True)
            # Without a strong mark nobody can tell whether the rest belongs to the first half.
            mark_file.unlink(missing_ok=True)
            if mark and not mark.startswith("W/"):
                mark_file.write_text(mark)
            _receive(answer, part, start=half if goes_on else 0, most=limits.file_bytes)
    except httpx.TransportError as error:
        raise _PassingError(type(error).__name__) from error
    except httpx.HTTPError as error:
        raise _refused(address, f"unreachable: {type(error).__name__}") from error
    mark_file.unlink(missing_ok=True)
    with atomic.replacing(target) as draft:
        os.replace(part, draft)
    return mark


def _receive(answer: httpx.Response, part: Path, *, start: int, most: int) -> None:
    length = answer.headers.get("content-length")
    whole = start + int(length) if length and length.isdigit() else None
    _refuse_size(whole or 0, most)
    size = start
    with open(part, "r+b" if start else "wb") as sink:
        sink.seek(start)
        sink.truncate()
        for piece in answer.iter_raw(_CHUNK):
            size += len(piece)
            _refuse_size(size, most)
            sink.write(piece)
    if whole is not None and size != whole:
        raise _PassingError(f"{size} of {whole} bytes came")


def _refuse_status(answer: httpx.Response) -> None:
    code = answer.status_code
    if code in (408, 416, 425, 429) or code >= 500:
        raise _PassingError(f"HTTP {code}")
    if code not in (200, 206):
        word = "gone" if code in (404, 410) else "unreachable"
        raise _refused(str(answer.request.url), f"{word}: HTTP {code}")


def _store(
    address: str, folder: Path, marks: dict[str, str], limits: FetchLimits
) -> dict[str, str]:
    import fsspec

    try:
        files, base = fsspec.core.url_to_fs(address, skip_instance_cache=True)
    except (ValueError, ImportError) as error:
        raise _refused(address, f"unreachable: {error}") from None
    there = _again(limits, address, lambda: _listed(files, base, address, limits))
    found = {}
    for name, (key, size, mark) in sorted(there.items()):
        target = folder / name
        _refuse_size(size, limits.file_bytes)
        if marks.get(name) != mark or not target.is_file():
            _again(limits, address, partial(_copied, files, key, target, limits))
        found[name] = mark
    return found


def _listed(
    files: Any, base: str, address: str, limits: FetchLimits
) -> dict[str, tuple[str, int, str]]:
    """Relative path to key, size and mark of every file at or below an address."""
    try:
        files.invalidate_cache()
        if files.isfile(base):
            listed = {name_of(address): files.info(base)}
        else:
            below = files.find(base, detail=True)
            listed = {
                os.path.relpath(key, base): facts
                for key, facts in below.items()
                if facts.get("type", "file") == "file" and not key.endswith("/")
            }
    except FileNotFoundError:
        listed = {}
    except Exception as error:  # each store has errors of its own
        raise _passing(error) from error
    # Keys are free text: one that would leave the folder, or hide in it, is no file of ours.
    safe = {
        name: facts
        for name, facts in listed.items()
        if not any(part.startswith(".") for part in PurePosixPath(name).parts)
        and not PurePosixPath(name).is_absolute()
    }
    if not safe:
        raise _refused(address, "gone: nothing is there")
    if len(safe) > limits.files:
        raise _refused(address, f"too_large: {len(safe)} files, at most {limits.files}")
    marks = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return {
        name: (
            str(facts["name"]),
            int(facts.get("size") or 0),
            f"{facts.get('size')} " + next((str(facts[m]) for m in marks if facts.get(m)), ""),
        )
        for name, facts in safe.items()
    }


def _copied(files: Any, key: str, target: Path, limits: FetchLimits) -> None:
    try:
        with atomic.replacing(target) as draft:
            size = 0
            with files.open(key, "rb") as source, open(draft, "wb") as sink:
                while piece := source.read(_CHUNK):
                    size += len(piece)
                    _refuse_size(size, limits.file_bytes)
                    sink.write(piece)
    except MediaError:
        raise
    except Exception as error:
        raise _passing(error) from error


def _passing(error: Exception) -> Exception:
    """What a store raised, as something to try again or not."""
    kind = type(error).__name__
    if isinstance(error, PermissionError) or "Credentials" in kind:
        return MediaError(
            "a store that lets us read",
            got=f"unreachable: {kind}",
            mend="give credentials as its own tools take them (AWS_* variables, a profile)",
        )
    if isinstance(error, FileNotFoundError):
        return MediaError("a file that is there", got="gone: no such key", mend="check the address")
    return _PassingError(kind)


def _again(limits: FetchLimits, address: str, attempt: Callable[[], Any]) -> Any:
    """An attempt, repeated with growing pauses while it fails in a way that may pass."""
    from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt
    from tenacity.wait import wait_exponential

    tries = Retrying(
        stop=stop_after_attempt(limits.attempts),
        wait=wait_exponential(multiplier=limits.pause_s, max=16 * limits.pause_s),
        retry=retry_if_exception_type(_PassingError),
    )
    try:
        return tries(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise _refused(address, f"unreachable: {last}, {limits.attempts} times") from None


def _refuse_size(size: int, most: int) -> None:
    if size > most:
        raise MediaError(
            f"at most {most} bytes", got="too_large: more than that", mend="fetch it by hand"
        )


def _refused(address: str, got: str) -> MediaError:
    return MediaError(
        f"a file at {shown(address)}", got=got, mend="check the address, then ingest it again"
    )
