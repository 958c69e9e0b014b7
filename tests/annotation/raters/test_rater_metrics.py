from __future__ import annotations

import numpy as np
import pytest

from annotation.raters.training import metrics

VOTES = np.array(
    [
        [8, 2, 0, 0, 0, 0, 0, 0, 0, 0],  # neutral
        [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],  # happiness
        [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # tie
        [2, 0, 0, 0, 0, 0, 0, 0, 8, 0],  # unknown
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 9],  # not a face
    ]
)


def test_truth__leaves_out_ties_and_open_set() -> None:
    rows, label = metrics.truth(VOTES)
    assert rows.tolist() == [True, True, False, False, False]
    assert label[rows].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("votes", "kept"),
    [
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], True),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], False),  # half is not more than half
        ([5, 1, 1, 1, 1, 1, 0, 0, 0, 0], True),  # single votes do not count
        ([4, 2, 2, 2, 0, 0, 0, 0, 0, 0], False),  # a plurality, no majority
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], False),  # nothing is left
        ([0, 0, 0, 0, 0, 0, 0, 2, 8, 0], False),  # unknown
    ],
)
def test_official_truth__majority_without_single_votes(votes: list[int], kept: bool) -> None:
    rows, label = metrics.official_truth(np.array([votes]))
    assert rows.tolist() == [kept]
    assert label[0] == np.argmax(votes) or not kept


def test_figures__votes_as_answers_are_perfect() -> None:
    figures = metrics.figures(VOTES / 10, VOTES)
    assert figures["accuracy"] == figures["macro_f1"] == 1
    assert figures["divergence"] == pytest.approx(0, abs=1e-9)
    assert figures["calibration_votes"] == pytest.approx(0)
    # Votes of .8 and .9 are always the plurality: under-confident in that sense.
    assert figures["calibration_plurality"] == pytest.approx(0.15)


def test_divergence__by_hand() -> None:
    shares, answers = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert metrics.divergence(shares, answers)[0] == pytest.approx(expected)


def test_f1__by_hand() -> None:
    table = metrics.confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert metrics.f1(table)[:2].tolist() == pytest.approx([2 / 3, 0.8])
    assert np.isnan(metrics.f1(table)[2:]).all()
    assert metrics.recall(table)[:2].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [([1.0, 1.0], [1, 1], 0.0), ([0.9, 0.9], [1, 0], 0.4), ([0.1, 0.9], [0, 1], 0.1)],
)
def test_calibration_error__by_hand(
    confidence: list[float], right: list[int], error: float
) -> None:
    rows = metrics.calibration(np.array(confidence), np.array(right))
    assert sum(row["faces"] for row in rows) == len(right)
    assert metrics.calibration_error(rows) == pytest.approx(error)


def test_correlations__skips_unknown_and_constant() -> None:
    guess = np.array([[0.1, 0.5], [0.2, 0.5], [0.9, 0.5], [0.3, 0.5]])
    target = np.array([[0.2, 0.1], [0.4, 0.2], [1.8, 0.3], [np.nan, 0.4]])
    by_unit = metrics.correlations([12, 5], guess, target)
    assert by_unit[12] == pytest.approx(1)
    assert np.isnan(by_unit[5])


def test_mean_reliable__leaves_out_unreliable_units() -> None:
    assert metrics.mean_reliable({12: 0.8, 1: 0.6, 5: -1.0, 9: -1.0}) == pytest.approx(0.7)


def test_best_temperature__recovers_the_factor() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (400, 10))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert metrics.best_temperature(logits * 2, shares) == pytest.approx(2, abs=0.02)


def test_best_power__calibrates_the_plurality() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(8, 0.6), 3000)
    votes = np.stack([rng.multinomial(10, row) for row in shares])
    votes = np.hstack([votes, np.zeros((3000, 2), dtype=int)])
    answers = np.hstack([shares, np.zeros((3000, 2))])
    power = metrics.best_power(shares, votes)
    modest = metrics.figures(answers, votes)
    apt = metrics.figures(answers, votes, power=power)
    assert power > 1.5
    assert apt["calibration_plurality"] < 0.03 < modest["calibration_plurality"]
    # The power does not change the shares.
    assert apt["calibration_votes"] == modest["calibration_votes"]
