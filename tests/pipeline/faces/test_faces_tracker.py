"""The same face keeps its number; no detection goes without one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pipeline.faces.extract import Tracker

Square = tuple[float, float, float]
"""x, y and side in pixels."""


def boxes(*squares: Square) -> np.ndarray:
    rows = [(x, y, x + side, y + side, 0.9) for x, y, side in squares]
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def numbers(steps: list[list[Square]], *, fps: float = 5.0) -> list[list[int]]:
    tracker = Tracker(fps=fps)
    return [tracker.update(boxes(*step), time_s=i / fps) for i, step in enumerate(steps)]


A, B = (0.0, 0.0, 40.0), (200.0, 0.0, 40.0)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([[]], [[]], id="one empty picture"),
        pytest.param([[A]], [[0]], id="one picture"),
        pytest.param([[A, B], [B, A], [A, B]], [[0, 1], [1, 0], [0, 1]], id="order of boxes"),
        pytest.param([[], [B], [A, B]], [[], [0], [1, 0]], id="numbers by first appearance"),
        pytest.param([[A], [], [], [], [A]], [[0], [], [], [], [0]], id="hidden for 0.8 s"),
        pytest.param([[A], *[[]] * 6, [A]], [[0], *[[]] * 6, [1]], id="hidden for 1.4 s"),
        pytest.param([[A], [B], [A]], [[0], [1], [0]], id="another face meanwhile"),
        pytest.param(
            [[(30.0 * i, 0, 40)] for i in range(8)], [[0]] * 8, id="three quarters of its width"
        ),
        pytest.param([[A, A], [A]], [[0, 1], [0]], id="two boxes in one place"),
    ],
)
def test_tracker__numbers(steps: list[list[Square]], expected: list[list[int]]) -> None:
    assert numbers(steps) == expected


def test_tracker__reset() -> None:
    tracker = Tracker(fps=5)
    assert tracker.update(boxes(A, B), time_s=0.0) == [0, 1]
    assert tracker.update(boxes(A, B), time_s=0.2) == [0, 1]
    tracker.reset()
    assert tracker.update(boxes(B, A), time_s=0.4) == [2, 3]
    assert tracker.update(boxes(A, B), time_s=0.6) == [3, 2]


def test_tracker__crossing_faces() -> None:
    steps = [[(10.0 * i, 0, 40), (300 - 10.0 * i, 45, 40)] for i in range(30)]
    assert numbers(steps) == [[0, 1]] * 30


def test_tracker__crowd() -> None:
    rng = np.random.default_rng(0)
    tracker, seen = Tracker(fps=5), 0
    for step in range(40):
        squares = [(x, y, 30.0) for x, y in rng.uniform(0, 400, (rng.integers(0, 7), 2))]
        got = tracker.update(boxes(*squares), time_s=step / 5)
        assert len(got) == len(set(got)) == len(squares)
        fresh = [number for number in got if number >= seen]
        assert fresh == list(range(seen, seen + len(fresh)))
        seen += len(fresh)


def test_import__no_heavy_modules() -> None:
    code = (
        "import sys, pipeline.faces.detect, pipeline.faces.extract;"
        "print([m for m in ('trackers', 'cv2', 'insightface', 'onnxruntime', 'torch', 'dagster',"
        " 'av', 'PIL') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
