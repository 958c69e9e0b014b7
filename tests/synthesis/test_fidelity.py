"""Distances between sets of features, on sets whose distance is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from synthesis import evaluation
from warehouse.errors import TableError

RNG = np.random.default_rng(0)


def cloud(n: int, *, shift: float = 0.0, scale: float = 1.0, width: int = 4) -> np.ndarray:
    return np.random.default_rng((n, width)).normal(0, scale, (n, width)) + shift


def test_frechet__shift() -> None:
    rows = cloud(300)
    assert evaluation.frechet(rows, rows) == pytest.approx(0, abs=1e-9)
    # A set moved by 3 along each of 4 axes keeps its covariance.
    assert evaluation.frechet(rows, rows + 3) == pytest.approx(4 * 9)


def test_frechet__scaling() -> None:
    rows = cloud(300)
    rows -= rows.mean(axis=0)
    variance = np.trace(np.cov(rows.T))
    # sqrt(S1 S2) = 2 S1 for S2 = 4 S1, hence tr S1 + 4 tr S1 - 4 tr S1.
    assert evaluation.frechet(rows, 2 * rows) == pytest.approx(variance)


def test_frechet__covariances_do_not_commute() -> None:
    a, b = cloud(500, width=3) @ RNG.random((3, 3)), cloud(400, width=3) @ RNG.random((3, 3))
    one, two = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(one @ two).real).sum()
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * root
    assert evaluation.frechet(a, b) == pytest.approx(wanted)
    assert evaluation.frechet(a, b) == pytest.approx(evaluation.frechet(b, a))


@pytest.mark.parametrize("rows", [cloud(1), cloud(9, width=3)], ids=["one row", "another width"])
def test_frechet__no_covariance(rows: np.ndarray) -> None:
    with pytest.raises(TableError, match="at least two features of one width"):
        evaluation.frechet(rows, cloud(9))


@pytest.mark.parametrize("of", [evaluation.frechet_interval, evaluation.kernel_interval])
def test_interval__holds_the_value(of: Callable[..., evaluation.Figure]) -> None:
    one, two = (np.random.default_rng(seed).normal(size=(300, 4)) for seed in (0, 1))
    near, far = of(one, two, draws=40), of(one + 1, two, draws=40)
    for found in (near, far):
        assert found.low <= found.value <= found.high
    assert near.high < far.low


def test_frechet_interval__resamples_repeat_rows() -> None:
    """Repeated rows raise the distance; the interval does not move with them."""
    one, two = (np.random.default_rng(seed).normal(size=(60, 16)) for seed in (0, 1))
    found = evaluation.frechet_interval(one, two, draws=40)
    assert found.low < evaluation.frechet(one, two) < found.high


def test_kernel_distance__within_and_between() -> None:
    one, two = (np.random.default_rng(seed).normal(size=(400, 4)) for seed in (0, 1))
    assert abs(evaluation.kernel_distance(one, two)) < 0.05
    assert evaluation.kernel_distance(one, two + 1) > 0.5


def test_memorisation__copies() -> None:
    train, test = cloud(200), np.random.default_rng(5).normal(size=(150, 4))
    fresh = np.random.default_rng(6).normal(size=(150, 4))
    assert evaluation.memorisation(train[:50], train, test) == pytest.approx(0, abs=1e-6)
    assert evaluation.memorisation(fresh, train, test) == pytest.approx(1, abs=0.25)


def test_nearest__chunks() -> None:
    rows, others = cloud(2500), cloud(30)
    plain = np.linalg.norm(rows[:, None] - others[None], axis=2).min(axis=1)
    np.testing.assert_allclose(evaluation.nearest(rows, others), plain, atol=1e-6)
