"""Thresholds of requested expressions, fitted on real faces."""

from __future__ import annotations

import json

import numpy as np
import pytest

from annotation.raters.onnx_rater import rater_id_of, read_card, weights_of
from pipeline.synthesis import class_thresholds
from pipeline.synthesis.service import evaluation_raters, labelling_raters
from synthesis.pseudo_labels import UNSURE, Reading, rectify
from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

FEAR, SURPRISE, HAPPY = (EXPRESSIONS.index(one) for one in ("fear", "surprise", "happiness"))


def rows(n: int, **shares: float) -> np.ndarray:
    row = np.zeros(8)
    for name, share in shares.items():
        row[EXPRESSIONS.index(name)] = share
    row[0] += 1 - row.sum()
    return np.tile(row, (n, 1))


def test_fit__rare_expression_gets_a_lower_bar() -> None:
    # A rater that never gives fear more than 0.3, and gives happiness 0.9.
    sure = np.concatenate(
        [
            rows(8, fear=0.3, surprise=0.6),
            rows(2, fear=0.1, surprise=0.8),
            rows(10, fear=0.1, surprise=0.8),
            rows(10, happiness=0.9),
        ]
    )
    truth = np.repeat([FEAR, FEAR, SURPRISE, HAPPY], [8, 2, 10, 10])
    found = class_thresholds.fit(sure, truth)
    assert found[FEAR] == pytest.approx(0.3)
    assert found[SURPRISE] == UNSURE
    assert found[HAPPY] == UNSURE
    # At 0.1 half of the answers would be surprise: 10 of 10 faces of fear against 10 of 10.
    assert class_thresholds.fit(sure, truth, precision=0.5)[FEAR] == pytest.approx(0.1)


def test_fit__too_few_faces() -> None:
    sure, truth = rows(4, fear=0.3), np.full(4, FEAR)
    assert (class_thresholds.fit(sure, truth) == UNSURE).all()


def test_rectify__rare_expression_is_kept() -> None:
    seen = Reading("a", rows(1, fear=0.3, surprise=0.6), np.full((1, len(ACTION_UNITS)), np.nan))
    asked = np.eye(8)[[FEAR]]
    au = np.full((1, len(ACTION_UNITS)), np.nan)
    strict = rectify(asked, au, [seen]).row(0, named=True)
    assert strict["action"] == "relabelled"
    assert int(np.argmax(strict["soft_label"])) == SURPRISE
    bars = np.full(8, UNSURE)
    bars[FEAR] = 0.25
    kept = rectify(asked, au, [seen], thresholds=bars).row(0, named=True)
    assert kept["action"] == "kept"
    assert int(np.argmax(kept["soft_label"])) == FEAR
    assert rectify(asked, au, [seen], thresholds=bars + 0.1)["action"].item() == "relabelled"


def test_of_raters__unknown() -> None:
    assert class_thresholds.of_raters([]) is None
    assert class_thresholds.of_raters(["machine-of-my-own"]) is None


def test_of_raters__shipped() -> None:
    shipped = rater_id_of(read_card(weights_of("default")))
    found = class_thresholds.of_raters([shipped])
    assert found is not None, "run python -m pipeline.synthesis.class_thresholds"
    assert ((found > 0) & (found <= UNSURE)).all()
    rare = [EXPRESSIONS.index(name) for name in ("disgust", "fear", "contempt")]
    assert (found[rare] < UNSURE / 2).all()
    judge = rater_id_of(read_card(weights_of("judge")))
    assert judge not in json.loads(class_thresholds.FILE.read_text())


@pytest.mark.parametrize("rater", ["default", "judge"])
def test_labelling_raters__never_the_judge(rater: str) -> None:
    judge = rater_id_of(read_card(weights_of("judge")))
    found = labelling_raters(rater)
    assert [one.rater_id for one in found] == [rater_id_of(read_card(weights_of("default")))]
    assert judge in {one.rater_id for one in evaluation_raters(rater)}
    with pytest.raises(SettingsError, match="guided the faces"):
        labelling_raters(rater, guide_id=found[0].rater_id)
