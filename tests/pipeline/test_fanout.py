"""Every item comes back once, with a result or an error, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.execution import map_items
from warehouse.errors import MediaError, RisoriusError, SettingsError

ROOT = Path(__file__).parents[2]


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def work(item: int, *, base: int = 0) -> tuple[int, int]:
    """Squares, except for the items that stand for an accident."""
    match item:
        case -1:
            raise MediaError("a whole file", got="half of one", hint="copy it again")
        case -2:
            os.kill(os.getpid(), signal.SIGKILL)
        case -3:
            os.kill(os.getpid(), signal.SIGSEGV)
        case -4:
            os._exit(7)
        case -5:
            raise SystemExit(3)
        case -6:
            raise UnpicklableError("no", "way")
        case -7:
            return (lambda: 0), 0  # type: ignore[return-value]
        case -8:
            time.sleep(600)
    return base + item * item, os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_back_with_its_result(workers: int) -> None:
    found = dict(map_items(partial(work, base=100), range(5), workers=workers))
    assert {item: value for item, (value, _) in found.items()} == {
        item: 100 + item * item for item in range(5)
    }
    pids = {pid for _, pid in found.values()}
    assert (pids == {os.getpid()}) == (workers == 1)


def test_one_item_needs_no_worker_and_none_no_work() -> None:
    assert dict(map_items(work, [3], workers=8)) == {3: (9, os.getpid())}
    assert list(map_items(work, [], workers=8)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_the_outcome_of_its_item_only(workers: int) -> None:
    found = dict(map_items(work, [1, -1, 2], workers=workers))
    assert isinstance(found[-1], MediaError)
    assert str(found[-1]) == "a whole file: half of one. Copy it again"
    assert found[1][0] == 1
    assert found[2][0] == 4


def test_workers_that_die_take_only_their_item_with_them() -> None:
    items = [1, -2, 2, -3, 3, -4, 4, -5, 5]
    found = dict(map_items(work, items, workers=2))
    assert set(found) == set(items)
    assert [found[item][0] for item in (1, 2, 3, 4, 5)] == [1, 4, 9, 16, 25]
    said = {item: str(found[item]) for item in (-2, -3, -4, -5)}
    assert all(isinstance(found[item], RisoriusError) for item in said)
    assert "SIGKILL" in said[-2]
    assert "SIGSEGV" in said[-3]
    assert "code 7" in said[-4]
    assert "code 3" in said[-5]


def test_what_cannot_travel_becomes_an_error_that_says_so() -> None:
    found = dict(map_items(work, [-6, -7, 6], workers=2))
    assert "UnpicklableError: no way" in str(found[-6])
    assert isinstance(found[-7], Exception)
    assert found[6][0] == 36


def generous(item: int) -> float | None:
    return 0.2 if item == -8 else None


@pytest.mark.parametrize("limit", [1.0, generous])
@pytest.mark.parametrize("items", [[-8], [1, -8, 2, 3]])
def test_an_item_beyond_its_time_costs_its_worker_and_nothing_else(
    items: list[int], limit: Any
) -> None:
    found = dict(map_items(work, items, workers=2, limit_s=limit))
    assert set(found) == set(items)
    assert isinstance(found[-8], RisoriusError)
    assert found[-8].got.startswith("timeout")
    assert [found[item][0] for item in items if item > 0] == [i * i for i in items if i > 0]


def test_work_that_fills_a_machine_stays_in_this_process() -> None:
    found = dict(map_items(work, range(3), workers=2, over="machines"))
    assert {pid for _, pid in found.values()} == {os.getpid()}


def test_stopping_to_listen_ends_the_workers() -> None:
    results = map_items(work, range(50), workers=2)
    _, (_, pid) = next(results)  # type: ignore[misc]
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "dask"}, "'dask'"),
        ({"workers": 0}, "at least 1 worker"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(given: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        map_items(work, [1], **given)


SCRIPT = """
    import os, signal, sys, time
    from pipeline.execution import map_items

    # Tests run in the background inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def slow(item):
        print("pid", os.getpid(), flush=True)
        time.sleep(600)

    {guard}
        for _ in map_items(slow, [1, 2], workers=2):
            pass
"""


def _script(folder: Path, *, guard: str) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).format(guard=guard))
    return subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_or_a_killed_parent_leaves_no_worker_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = _script(tmp_path, guard="if __name__ == '__main__':")
    assert script.stdout is not None
    pids = [int(script.stdout.readline().split()[1]) for _ in range(2)]
    os.kill(script.pid, number)
    # Ends only when the last holder of the pipe, worker or parent, is gone.
    assert script.stdout.read() == ""
    assert script.wait() != 0
    assert len(set(pids)) == 2


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = _script(tmp_path, guard="if True:")
    _, said = script.communicate()
    assert script.returncode != 0
    assert "SettingsError" in said
    assert "__name__ == '__main__'" in said
