"""An erasure waits for writers, and new writers wait for it."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from warehouse.errors import StudioError
from warehouse.storage import locks

SPAWN = multiprocessing.get_context("spawn")


def write(root: Path, order: Path, begun: Event, end: Event, *, join: bool = False) -> None:
    with locks.writing(root, join=join):
        begun.set()
        assert end.wait(30)
        with order.open("a") as out:
            out.write("+")


def erase(root: Path, order: Path, waits: Event) -> None:
    with locks.erasing(root, waiting=lambda what: waits.set()), order.open("a") as out:
        out.write("!")


def start(target: object, *given: object) -> multiprocessing.process.BaseProcess:
    process = SPAWN.Process(target=target, args=given)
    process.start()
    return process


def test_erasing__waits_for_writers_and_holds_up_new_ones(tmp_path: Path) -> None:
    root, order = tmp_path / "home", tmp_path / "order"
    one, two, waits, end = (SPAWN.Event() for _ in range(4))
    first = start(write, root, order, one, end)
    assert one.wait(30)
    erasure = start(erase, root, order, waits)
    assert waits.wait(30)
    second = start(write, root, order, two, end)
    assert not two.wait(0.3)
    end.set()
    for process in (first, erasure, second):
        process.join(30)
        assert process.exitcode == 0
    assert order.read_text() == "+!+"


def test_writing__worker_joins_the_process_that_an_erasure_waits_for(tmp_path: Path) -> None:
    root, order = tmp_path / "home", tmp_path / "order"
    waits, begun, end = (SPAWN.Event() for _ in range(3))
    with locks.writing(root):
        erasure = start(erase, root, order, waits)
        assert waits.wait(30)
        worker = SPAWN.Process(target=write, args=(root, order, begun, end), kwargs={"join": True})
        worker.start()
        assert begun.wait(30)
    # The parent is done, its worker is not.
    assert not order.exists()
    end.set()
    for process in (worker, erasure):
        process.join(30)
    assert order.read_text() == "+!"


def test_erasing__inside_a_step(tmp_path: Path) -> None:
    inside = pytest.raises(StudioError, match="inside a step")
    with locks.writing(tmp_path), inside, locks.erasing(tmp_path):
        pass
    locks.hold_until_exit(tmp_path)
    with locks.erasing(tmp_path):  # the step of this process has ended
        pass
