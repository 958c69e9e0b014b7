"""``map_items`` on local processes: one outcome per item, whatever fails."""

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
    """Return square and process id; negative items fail in various ways."""
    match item:
        case -1:
            raise MediaError("The file is truncated", got="half of it", hint="copy it again")
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
        case -9:
            os._exit(0)
    return base + item * item, os.getpid()


def kill_odd(item: int) -> int:
    """Kill the worker of every odd item as soon as it starts."""
    if item % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_map_items__yields_every_result(workers: int) -> None:
    found = dict(map_items(partial(work, base=100), range(5), workers=workers))
    assert {item: value for item, (value, _) in found.items()} == {
        item: 100 + item * item for item in range(5)
    }
    pids = {pid for _, pid in found.values()}
    assert (pids == {os.getpid()}) == (workers == 1)


@pytest.mark.parametrize(
    ("items", "over"), [([3], "cores"), ([], "cores"), ([1, 2, 3], "machines")]
)
def test_map_items__runs_here_without_need_of_workers(items: list[int], over: Any) -> None:
    here = os.getpid()
    found = dict(map_items(work, items, workers=8, over=over))
    assert found == {item: (item * item, here) for item in items}


@pytest.mark.parametrize("workers", [1, 2])
def test_map_items__exception_is_outcome_of_its_item(workers: int) -> None:
    found = dict(map_items(work, [1, -1, 2], workers=workers))
    assert isinstance(found[-1], MediaError)
    assert str(found[-1]) == "The file is truncated: half of it. Copy it again"
    assert (found[1][0], found[2][0]) == (1, 4)


def test_map_items__dead_worker_fails_only_its_item() -> None:
    endings = {-2: "SIGKILL", -3: "SIGSEGV", -4: "code 7", -5: "code 3", -9: "code 0"}
    items = [1, -2, 2, -3, 3, -4, 4, -5, 5, -9]
    found = dict(map_items(work, items, workers=2))
    assert set(found) == set(items)
    assert [found[item][0] for item in range(1, 6)] == [1, 4, 9, 16, 25]
    for item, ending in endings.items():
        assert isinstance(found[item], RisoriusError)
        assert ending in str(found[item])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_map_items__survives_many_immediate_deaths() -> None:
    found = dict(map_items(kill_odd, range(60), workers=2))
    assert [found[item] for item in range(0, 60, 2)] == list(range(0, 60, 2))
    assert all("SIGKILL" in str(found[item]) for item in range(1, 60, 2))


def test_map_items__unpicklable_outcome_is_an_error() -> None:
    found = dict(map_items(work, [-6, -7, 6], workers=2))
    assert "UnpicklableError: no way" in str(found[-6])
    assert isinstance(found[-7], Exception)
    assert found[6][0] == 36


def limit_sleeper(item: int) -> float | None:
    return 0.2 if item == -8 else None


@pytest.mark.parametrize("limit", [1.0, limit_sleeper])
@pytest.mark.parametrize("items", [[-8], [1, -8, 2, 3]])
def test_map_items__timeout_fails_only_its_item(items: list[int], limit: Any) -> None:
    found = dict(map_items(work, items, workers=2, limit_s=limit))
    assert set(found) == set(items)
    assert isinstance(found[-8], RisoriusError)
    assert found[-8].got.startswith("timeout")
    assert [found[item][0] for item in items if item > 0] == [i * i for i in items if i > 0]


def test_map_items__closing_the_iterator_kills_the_workers() -> None:
    results = map_items(work, range(50), workers=2)
    _, (_, pid) = next(results)  # type: ignore[misc]
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("options", "message"), [({"engine": "dask"}, "'dask'"), ({"workers": 0}, "RISORIUS_WORKERS")]
)
def test_map_items__refuses_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        map_items(work, [1], **options)


SCRIPT = """
    import os, signal, sys, time
    from pipeline.execution import map_items

    # A test run in the background inherits that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def slow(item):
        print("pid", os.getpid(), flush=True)
        time.sleep(600)

    {guard}
        for _ in map_items(slow, [1, 2], workers=2):
            pass
"""


def run_script(folder: Path, *, guard: str) -> subprocess.Popen[str]:
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
def test_map_items__leaves_no_worker_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    script = run_script(tmp_path, guard="if __name__ == '__main__':")
    assert script.stdout is not None
    pids = [int(script.stdout.readline().split()[1]) for _ in range(2)]
    os.kill(script.pid, number)
    # The pipe closes only when its last holder, worker or parent, has ended.
    assert script.stdout.read() == ""
    assert script.wait() != 0
    assert len(set(pids)) == 2


def test_map_items__names_the_missing_main_guard(tmp_path: Path) -> None:
    script = run_script(tmp_path, guard="if True:")
    _, errors = script.communicate()
    assert script.returncode != 0
    assert "SettingsError" in errors
    assert "__name__ == '__main__'" in errors
