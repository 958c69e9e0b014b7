"""How hard a file elsewhere is tried for, how much of it is taken, and what is said of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from warehouse.errors import MediaError
from warehouse.storage.downloads import redact_url

CHUNK = 1 << 20


@dataclass(frozen=True)
class FetchLimits:
    """What may be fetched, and how hard it is tried.

    Attributes:
        file_bytes: of one file.
        files: below one address of an object store.
        attempts: per file, with pauses of ``pause_s`` to 16 times that.
        timeout_s: without a single byte.
        at_once: files fetched side by side.
        stopped: set by who waits no longer; what is under way ends at its next piece.
    """

    file_bytes: int = 50 << 30
    files: int = 20_000
    attempts: int = 5
    pause_s: float = 0.5
    timeout_s: float = 30.0
    at_once: int = 4
    stopped: threading.Event = field(default_factory=threading.Event, compare=False)


class PassingError(Exception):
    """A failure that may pass: tried again."""


def again(limits: FetchLimits, address: str, attempt: Callable[[], Any]) -> Any:
    """An attempt, repeated with growing pauses while it fails in a way that may pass."""
    from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt
    from tenacity.nap import sleep_using_event
    from tenacity.stop import stop_when_event_set
    from tenacity.wait import wait_exponential

    tries = Retrying(
        sleep=sleep_using_event(limits.stopped),
        stop=stop_after_attempt(limits.attempts) | stop_when_event_set(limits.stopped),
        wait=wait_exponential(multiplier=limits.pause_s, max=16 * limits.pause_s),
        retry=retry_if_exception_type(PassingError),
    )
    try:
        return tries(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        raise refused(address, f"unreachable: {last}, {limits.attempts} times") from None


def name_of(address: str) -> str:
    """A file name for what is at an address."""
    last = unquote(urlsplit(address).path).rstrip("/").rpartition("/")[2]
    cleaned = re.sub(r"[^\w .()+-]", "_", last).strip(" .")
    return cleaned[-120:] or "download"


def refuse_size(size: int, limits: FetchLimits) -> None:
    """Ends what is too large, and what nobody waits for any more."""
    if limits.stopped.is_set():
        raise MediaError(
            "a fetch that goes on", got="unreachable: it was stopped", hint="ingest it again"
        )
    if size > limits.file_bytes:
        raise MediaError(
            f"at most {limits.file_bytes} bytes",
            got="too_large: more than that",
            hint="fetch it by hand",
        )


def refused(address: str, got: str) -> MediaError:
    return MediaError(
        f"a file at {redact_url(address)}", got=got, hint="check the address, then ingest it again"
    )
