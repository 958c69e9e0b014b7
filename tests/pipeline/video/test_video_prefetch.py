"""Work ahead in a thread: same items, same order, same errors, nothing left running."""

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
def test_items_come_in_order(n: int, depth: int) -> None:
    source = Source(n)
    assert list(prefetch(source.items(), depth=depth)) == list(range(n))
    assert source.closed
    assert running() == 0


def test_an_error_comes_after_the_items_before_it() -> None:
    line = prefetch(Source(5, ValueError("broken")).items(), depth=2)
    assert [next(line) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="broken"):
        next(line)
    assert running() == 0


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_waits_than_was_asked_for(depth: int) -> None:
    source = Source(100)
    line = prefetch(source.items(), depth=depth)
    for taken in range(1, 50):
        next(line)
        # What was taken, what waits, and the one the thread holds until there is room.
        assert source.made <= taken + depth + 1
    line.close()  # type: ignore[attr-defined]


def test_a_caller_who_stops_leaves_no_thread_behind() -> None:
    source = Source(10**9)
    line = prefetch(source.items(), depth=3)
    assert next(line) == 0
    line.close()  # type: ignore[attr-defined]
    assert source.closed
    assert running() == 0


def test_nor_does_one_who_fails_or_forgets() -> None:
    source = Source(10**9)

    def use() -> None:
        for number in prefetch(source.items(), depth=3):
            if number == 5:
                raise KeyError(number)

    with pytest.raises(KeyError):
        use()
    assert source.closed
    assert running() == 0
