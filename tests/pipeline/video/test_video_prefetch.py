"""Prefetching keeps items, order and errors and ends its thread."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from pipeline.video.reader import prefetch


class Source:
    """Counts what was made and whether it was closed."""

    def __init__(self, n: int, error: Exception | None = None) -> None:
        self.n, self.error = n, error
        self.made, self.closed = 0, False

    def items(self) -> Generator[int]:
        try:
            for number in range(self.n):
                self.made += 1
                yield number
            if self.error:
                raise self.error
        finally:
            self.closed = True


def running() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("n", [0, 1, 7, 300])
@pytest.mark.parametrize("depth", [1, 3])
def test_prefetch__order(n: int, depth: int) -> None:
    source = Source(n)
    assert list(prefetch(source.items(), depth=depth)) == list(range(n))
    assert source.closed
    assert running() == 0


def test_prefetch__error_after_earlier_items() -> None:
    line = prefetch(Source(5, ValueError("broken")).items(), depth=2)
    assert [next(line) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="broken"):
        next(line)
    assert running() == 0


@pytest.mark.parametrize("depth", [1, 4])
def test_prefetch__at_most_depth_items_wait(depth: int) -> None:
    source = Source(100)
    line = prefetch(source.items(), depth=depth)
    for taken in range(1, 50):
        next(line)
        # What was taken, what waits, and the one the thread holds until a slot is free.
        assert source.made <= taken + depth + 1
    line.close()  # type: ignore[attr-defined]


def test_prefetch__closed_early_ends_thread() -> None:
    source = Source(10**9)
    line = prefetch(source.items(), depth=3)
    assert next(line) == 0
    line.close()  # type: ignore[attr-defined]
    assert source.closed
    assert running() == 0


def test_prefetch__caller_error_ends_thread() -> None:
    source = Source(10**9)

    def use() -> None:
        for number in prefetch(source.items(), depth=3):
            if number == 5:
                raise KeyError(number)

    with pytest.raises(KeyError):
        use()
    assert source.closed
    assert running() == 0
