"""Control metrics on arrays with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from synthesis import evaluation
from synthesis.request import SWEEP_LEVELS

LEVELS = np.array(SWEEP_LEVELS)
RNG = np.random.default_rng(7)
FOLLOWS = 0.3 + 0.5 * LEVELS + RNG.normal(0, 0.3, (64, 1))
NOISE = RNG.random((64, 5))


@pytest.mark.parametrize(
    ("measured", "r", "slope"),
    [
        (FOLLOWS, 1.0, 0.5),
        (1 - FOLLOWS, -1.0, -0.5),
        (np.full((64, 5), 0.4), 0.0, 0.0),
        (np.vstack([FOLLOWS[:32], np.full((32, 5), 0.4)]), 0.5, 0.25),
    ],
    ids=["follows", "opposes", "never moves", "half of the seeds follow"],
)
def test_response__mean_within_seeds(measured: np.ndarray, r: float, slope: float) -> None:
    found = evaluation.response(LEVELS, measured)
    assert found.r.value == pytest.approx(r, abs=1e-9)
    assert found.slope == pytest.approx(slope)
    assert found.r.low <= found.r.value <= found.r.high


def test_response__offsets_between_seeds() -> None:
    far = FOLLOWS + RNG.normal(0, 100, (64, 1))
    assert evaluation.response(LEVELS, far).r.value == pytest.approx(1.0)
    pooled = np.corrcoef(np.tile(LEVELS, 64), far.ravel())[0, 1]
    assert abs(pooled) < 0.1
    assert evaluation.response(LEVELS, far).pooled == pytest.approx(pooled)


def test_coverage__chance_and_response() -> None:
    chance = evaluation.response(LEVELS, NOISE)
    assert chance.p > evaluation.SURE
    assert abs(chance.r.value) < 0.3
    strong = evaluation.response(LEVELS, FOLLOWS)
    assert strong.p < evaluation.SURE
    assert evaluation.coverage([strong, chance, chance, strong]) == 0.5


def test_response__one_seed() -> None:
    assert evaluation.response(LEVELS, FOLLOWS[:1]).p > 0.5


def test_mean_response__shared_seeds() -> None:
    both = np.stack([FOLLOWS, np.vstack([FOLLOWS[:32], 1 - FOLLOWS[32:]])])
    found = evaluation.mean_response(LEVELS, both)
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.45
    assert found.high > 0.55


def test_figure__known_sample() -> None:
    rows = np.random.default_rng(0).normal(3, 2, 400)
    found = evaluation.figure(rows)
    assert found.value == pytest.approx(rows.mean())
    # 1.96 standard errors of 2 / 20 on either side.
    assert found.low == pytest.approx(rows.mean() - 0.196, abs=0.03)
    assert found.high == pytest.approx(rows.mean() + 0.196, abs=0.03)
    assert evaluation.figure(rows) == found


@pytest.mark.parametrize(
    ("off", "wanted"), [(0.1, 5.0), (-0.1, 5.0), (0.5, 1.0)], ids=["own", "against", "all alike"]
)
def test_selectivity__off_target(off: float, wanted: float) -> None:
    slopes = np.full((3, 3), off)
    np.fill_diagonal(slopes, 0.5)
    whole, by_unit = evaluation.selectivity([4, 15, 26], slopes)
    assert whole == pytest.approx(wanted)
    assert by_unit == pytest.approx({4: wanted, 15: wanted, 26: wanted})


def test_selectivity__coupled_pairs() -> None:
    slopes = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.1, 0.1, 0.5]])
    assert evaluation.selectivity([25, 26, 4], slopes)[0] == pytest.approx(5)
    assert evaluation.selectivity([15, 26, 4], slopes)[0] < 5
    assert all(a < b for a, b in evaluation.COUPLED)


def test_swaps__by_hand() -> None:
    asked = np.array([[[1.0, 0.0, np.nan], [0.0, 1.0, 0.5]]] * 2)
    measured = asked.copy()
    measured[1] = measured[1, ::-1]
    measured[:, :, 2] = [[0.0, 9.0]] * 2
    assert evaluation.swaps(asked, measured).tolist() == [[True, True], [False, False]]
    assert evaluation.swaps_unbiased(asked, measured).tolist() == [True, False]


def test_swaps_unbiased__biased_rater() -> None:
    rng = np.random.default_rng(1)
    asked = rng.random((500, 2, 6))
    low = 0.3 * asked
    assert evaluation.swaps(asked, low).mean() < 0.8
    assert evaluation.swaps_unbiased(asked, low).all()
    chance = evaluation.swaps_unbiased(asked, rng.random((500, 2, 6))).mean()
    assert chance == pytest.approx(0.5, abs=0.07)


def test_agreement__ties() -> None:
    answers = np.eye(8)[[1, 2, 3]]
    answers[2, :] = 1 / 8
    assert evaluation.agreement(np.array([1, 3, 0]), answers).tolist() == [True, False, False]


def test_honesty_gap__by_hand() -> None:
    gap = evaluation.honesty_gap(guide=(0.5, 0.9), judge=(0.5, 0.6))
    assert gap == pytest.approx(0.3)
