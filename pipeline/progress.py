"""Progress of stages: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, str, int, int], None]
"""Called as ``listener(stage, item, done, total)``."""

_listeners: list[Listener] = []


def report(stage: str, item: str, done: int, total: int) -> None:
    """Report that ``done`` of ``total`` items have left ``stage``."""
    for listener in _listeners:
        listener(stage, item, done, total)


def waiting(what: str) -> None:
    """Report on standard error that this process waits for others."""
    print(f"waiting until {what} ended; Ctrl-C changes nothing", file=sys.stderr, flush=True)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send progress of this process to ``listener`` while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
