"""Scores of published benchmarks, computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases import metrics
from warehouse.releases.difficulty import with_difficulty

NAN = float("nan")


def test_confusion_scores__hand_computed() -> None:
    # Class 0: 2 of 3 found; class 1: 1 of 1 found and one false; class 2 does not occur.
    counts = metrics.confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), classes=3)
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert metrics.war(counts) == pytest.approx(3 / 4)
    assert metrics.uar(counts) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.uf1(counts) == pytest.approx((4 / 5 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("truth", "predicted", "wanted"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        # Shifted by 1: 2 * 2/3 / (2/3 + 2/3 + 1).
        ([1, 2, 3], [2, 3, 4], 4 / 7),
        ([1, 2, 3, NAN], [1, 2, 3, 9], 1.0),
        ([2, 2], [2, 2], 1.0),
        ([2, 2], [3, 3], 0.0),
        ([NAN], [1], NAN),
    ],
)
def test_ccc__hand_computed(truth: list[float], predicted: list[float], wanted: float) -> None:
    found = metrics.ccc(np.array(truth, float), np.array(predicted, float))
    assert found == pytest.approx(wanted, nan_ok=True)


def test_open_set_scores__hand_computed() -> None:
    is_open = np.array([True, True, False, False])
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    # Of four pairs three are right and one is tied.
    assert metrics.auroc(is_open, scores) == pytest.approx(3.5 / 4)
    # 95 % of two known faces need both, so the threshold is .4 and one open face passes.
    assert metrics.fpr_at_tpr(is_open, scores) == pytest.approx(1 / 2)
    assert metrics.fpr_at_tpr(is_open, scores, tpr=0.5) == 0
    assert np.isnan(metrics.auroc(np.array([True]), np.array([1.0])))


def test_wheel_overlap__hand_computed() -> None:
    wheel = {"glad": "happy", "joyful": "happy", "cross": "angry"}
    found = metrics.wheel_overlap(
        [{"glad", "cross"}, {"calm"}, set()], [["Joyful"], ["calm", "glad"], ["x"]], wheel=wheel
    )
    # Item 1: precision 1, recall 1/2; item 2: precision 1/2, recall 1; item 3 has no truth.
    assert found == pytest.approx({"precision": 0.75, "recall": 0.75, "fs": 0.75})
    with pytest.raises(ReleaseError, match="differ in length"):
        metrics.wheel_overlap([set()], [], wheel={})


def test_evaluate__all_kinds() -> None:
    soft = np.eye(8)[:4]
    found = releases.evaluate(
        soft,
        soft,
        is_open=np.array([True, False, False, True]),
        open_scores=np.array([1.0, 0, 0, 1]),
        mood=np.arange(8.0).reshape(4, 2),
        predicted_mood=np.arange(8.0).reshape(4, 2),
        words=[{"glad"}] * 4,
        predicted_words=[{"glad"}] * 4,
    )
    for name in ("war", "uar", "uf1", "auroc", "ccc_valence", "ccc_arousal", "wheel_fs"):
        assert found[name] == 1
    assert found["fpr_at_95_tpr"] == 0
    assert found["cross_entropy"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "extra",
    [{"is_open": np.array([True])}, {"mood": np.zeros((1, 2)), "predicted_mood": np.zeros((2, 2))}],
)
def test_evaluate__halves_of_a_pair(extra: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError, match="do not belong together"):
        releases.evaluate(np.eye(8)[:1], np.eye(8)[:1], **extra)


def test_difficulty__hand_graded() -> None:
    rest = [0.0] * 5
    rows = pl.DataFrame(
        {
            "soft_label": [
                [0.7, 0.3, 0.0, *rest],
                [0.6, 0.4, 0.0, *rest],
                [0.7, 0.3, 0.0, *rest],
                [0.5, 0.5, 0.0, *rest],
                None,
            ],
            "is_label_issue": [False, None, True, False, False],
        }
    )
    graded = with_difficulty(rows)["difficulty"].to_list()
    assert graded == ["easy", "challenging", "hard", "hard", None]
