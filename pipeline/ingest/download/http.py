"""One file over HTTP, whole or not at all; a download that broke goes on where it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.ingest.download.retry import (
    CHUNK,
    FetchLimits,
    PassingError,
    again,
    name_of,
    refuse_size,
    refused,
)
from warehouse.storage import atomic

if TYPE_CHECKING:
    import httpx


def download(
    address: str, folder: Path, marks: dict[str, str], limits: FetchLimits
) -> dict[str, str]:
    """The mark of the file at an address, by its name; as ``fetching.fetch``."""
    import httpx

    name = name_of(address)
    known = (marks.get(name) or None) if (folder / name).is_file() else None
    timeout = httpx.Timeout(limits.timeout_s, connect=10.0)
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        return {
            name: again(
                limits, address, lambda: _attempt(client, address, folder / name, known, limits)
            )
        }


def _attempt(
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
            _receive(answer, part, start=half if goes_on else 0, limits=limits)
    except httpx.TransportError as error:
        raise PassingError(type(error).__name__) from error
    except httpx.HTTPError as error:
        raise refused(address, f"unreachable: {type(error).__name__}") from error
    mark_file.unlink(missing_ok=True)
    with atomic.replace_file(target) as draft:
        os.replace(part, draft)
    return mark


def _receive(answer: httpx.Response, part: Path, *, start: int, limits: FetchLimits) -> None:
    length = answer.headers.get("content-length")
    whole = start + int(length) if length and length.isdigit() else None
    refuse_size(whole or 0, limits)
    size = start
    with open(part, "r+b" if start else "wb") as sink:
        sink.seek(start)
        sink.truncate()
        for piece in answer.iter_raw(CHUNK):
            size += len(piece)
            refuse_size(size, limits)
            sink.write(piece)
    if whole is not None and size != whole:
        raise PassingError(f"{size} of {whole} bytes came")


def _refuse_status(answer: httpx.Response) -> None:
    code = answer.status_code
    if code in (408, 416, 425, 429) or code >= 500:
        raise PassingError(f"HTTP {code}")
    if code not in (200, 206):
        word = "gone" if code in (404, 410) else "unreachable"
        raise refused(str(answer.request.url), f"{word}: HTTP {code}")
