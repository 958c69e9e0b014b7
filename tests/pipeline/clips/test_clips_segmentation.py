"""Movements found in drawn curves whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clips.segmentation import EpisodeOptions, episodes, movement

UNITS = (1, 12, 43)


def curve(fps: float, seconds: float, *bumps: tuple[float, float, float, float]) -> tuple:
    """Draw AU12 bumps ``(onset, apex, offset, height)`` on rest 0.2."""
    times = np.arange(round(fps * seconds) + 1) / fps
    curves = np.full((len(times), 3), 0.2)
    for onset, apex, offset, height in bumps:
        curves[:, 1] += np.interp(times, [onset, apex, offset], [0, height, 0], left=0, right=0)
    return times, curves


def found(times: np.ndarray, curves: np.ndarray, **options: float) -> list[tuple]:
    """``(onset_s, apex_s, offset_s, unit)`` of every episode."""
    chosen = EpisodeOptions(**options)
    moved = movement(times, curves, units=UNITS, options=chosen)
    return [
        (
            None if one.onset is None else round(float(times[one.onset]), 2),
            round(float(times[one.apex]), 2),
            None if one.offset is None else round(float(times[one.offset]), 2),
            UNITS[one.unit],
        )
        for one in episodes(times, moved, options=chosen)
    ]


@pytest.mark.parametrize("fps", [5.0, 12.5, 30.0])
def test_episodes__onset_apex_offset(fps: float) -> None:
    times, curves = curve(fps, 12, (2, 3, 4.5, 0.7), (8, 8.8, 10, 0.5))
    (one, two) = found(times, curves)
    for (onset, apex, offset, unit), truth in ((one, (2, 3, 4.5)), (two, (8, 8.8, 10))):
        assert unit == 12
        # The threshold is crossed a little after the onset and before the offset.
        assert truth[0] - 0.2 <= onset <= truth[0] + 0.5
        assert abs(apex - truth[1]) <= 0.25
        assert truth[2] - 0.6 <= offset <= truth[2] + 0.2


def test_movement__constant_level_is_rest(  # a face that seems to smile all the time shows nothing
) -> None:
    times, curves = curve(5, 20)
    curves[:, 0] = 0.9
    assert found(times, curves) == []


def test_episodes__cut_at_both_ends() -> None:
    times, curves = curve(5, 10, (-1, 0, 2, 0.8), (8, 10, 11, 0.8))
    (begun, lasting) = found(times, curves)
    assert begun[0] is None
    assert begun[2] is not None
    assert lasting[0] is not None
    assert lasting[2] is None


@pytest.mark.parametrize(
    ("bumps", "options", "n"),
    [
        (((2, 3, 4, 0.2),), {}, 0),  # never reaches rise
        (((2, 3, 4, 0.7), (4.2, 5, 6, 0.7)), {}, 2),
        (((2, 3, 5, 0.7), (3.4, 5, 6, 0.7)), {}, 1),  # does not come to rest between
        (((2, 2.2, 2.4, 0.9),), {"min_s": 3.0}, 0),
        ((), {}, 0),
    ],
)
def test_episodes__count(bumps: tuple, options: dict, n: int) -> None:
    assert len(found(*curve(10, 8, *bumps), **options)) == n


def test_episodes__gap_and_blink() -> None:
    times, curves = curve(10, 10, (3, 5, 7, 0.8))
    curves[:, 2] += np.where(np.arange(len(times)) % 20 < 2, 0.8, 0)
    away = (times > 4.5) & (times < 6)
    (before, after) = found(times[~away], curves[~away])
    assert before[2] is None
    assert after[0] is None
    assert {before[3], after[3]} == {12}


def test_movement__nan() -> None:
    times, curves = curve(10, 8, (2, 3, 4, 0.7))
    truth = found(times, curves)
    curves[:, 0] = np.nan
    curves[33, 1] = np.nan
    assert found(times, curves) == truth


@pytest.mark.parametrize("n", [0, 1])
def test_episodes__few_rows(n: int) -> None:
    assert found(np.arange(n) / 5.0, np.full((n, 3), 0.5)) == []
    assert found(np.arange(3) / 5.0, np.full((3, 3), np.nan)) == []


def test_episodes__noise() -> None:
    rng = np.random.default_rng(5)
    times, curves = curve(5, 120)
    assert found(times, curves + rng.normal(0, 0.05, curves.shape)) == []
