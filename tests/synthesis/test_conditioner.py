from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthesis.condition import AUConditioner, FaceCondition
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

K = len(ACTION_UNITS)
SMILE = 1 + AU_INDEX[12]


@pytest.fixture(scope="module")
def conditioner() -> AUConditioner:
    torch.manual_seed(0)
    return AUConditioner(taught=(4, 12), width=16).eval()


def tokens(conditioner: AUConditioner, condition: FaceCondition) -> torch.Tensor:
    with torch.no_grad():
        return conditioner(condition)[0]


def test_one_token_per_unit_and_one_vector(conditioner: AUConditioner) -> None:
    told, pooled = conditioner(FaceCondition.of([{12: 0.8}, {}], ["happy", None]))
    assert told.shape == (2, K + 1, 16)
    assert pooled.shape == (2, conditioner.pooled_width)
    assert torch.isfinite(told).all()
    assert torch.isfinite(pooled).all()


def test_a_unit_moves_its_own_token_only(conditioner: AUConditioner) -> None:
    rows = tokens(conditioner, FaceCondition.of([{12: 0.2}, {12: 0.9}], [None, None]))
    changed = (rows[0] - rows[1]).abs().amax(dim=1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [SMILE]


def test_absent_unknown_and_null_differ(conditioner: AUConditioner) -> None:
    said = FaceCondition.of([{4: 0.5, 12: 0}, {4: 0.5}], [None, None])
    absent, unknown = tokens(conditioner, said)[:, SMILE]
    null = tokens(conditioner, said.without(expression=False))[0, SMILE]
    for one, two in ((absent, unknown), (absent, null), (unknown, null)):
        assert (one - two).abs().max() > 1e-3


def test_an_untaught_unit_is_unknown_whatever_is_asked(conditioner: AUConditioner) -> None:
    rows, pooled = conditioner(FaceCondition.of([{12: 1, 9: 0.9}, {12: 1}], [None, None]))
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(pooled[0], pooled[1])


def test_without_forgets_one_side_and_keeps_the_other(conditioner: AUConditioner) -> None:
    both = FaceCondition.of([{12: 0.8}], ["happiness"])
    only_au, only_label = both.without(au=False), both.without(expression=False)
    full = tokens(conditioner, both)
    assert torch.equal(tokens(conditioner, only_au)[:, 1:], full[:, 1:])
    assert torch.equal(tokens(conditioner, only_label)[:, 0], full[:, 0])
    neither = tokens(conditioner, both.without())
    assert torch.equal(neither, tokens(conditioner, FaceCondition.of([{}], [None])))
    assert bool(both.without().null_au.all() and both.without().null_expression.all())


def test_guidance_may_replace_the_expression_token(conditioner: AUConditioner) -> None:
    condition = FaceCondition.of([{12: 0.8}], ["happiness"])
    other = torch.full((1, 16), 0.5, requires_grad=True)
    rows, _ = conditioner(condition, expression_token=other)
    assert torch.equal(rows[:, 0], other)
    rows.square().sum().backward()
    assert other.grad is not None
    assert other.grad.abs().sum() > 0


def test_the_expression_may_be_a_name_shares_or_a_vector() -> None:
    vector = np.array([0, 0.5, 0.5, 0, 0, 0, 0, 0], dtype=np.float32)
    shares = {"happy": 0.5, "surprise": 0.5}
    rows = FaceCondition.of([{}] * 4, ["Happiness", shares, vector, None])
    assert rows.expression[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert torch.equal(rows.expression[1], rows.expression[2])
    assert rows.null_expression.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("au", "expression", "said"),
    [
        ([{}], ["bored"], "neutral, happiness"),
        ([{}], ["unknown"], "neutral, happiness"),
        ([{}], [{"happy": 0.5}], "sums to 1"),
        ([{}], [np.ones(3)], "sums to 1"),
        ([{}], [np.array([2.0, -1, 0, 0, 0, 0, 0, 0])], "sums to 1"),
        ([{99: 0.5}], [None], "AU99"),
        ([{}, {}], [None], "2 expressions"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(
    au: list[dict[int, float]], expression: list[object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        FaceCondition.of(au, expression)  # type: ignore[arg-type]


def test_no_faces_are_a_condition_too(conditioner: AUConditioner) -> None:
    assert len(FaceCondition.of([], [])) == 0
    assert tokens(conditioner, FaceCondition.of([], [])).shape == (0, K + 1, 16)


def test_saved_and_loaded_it_says_the_same(conditioner: AUConditioner, tmp_path: Path) -> None:
    conditioner.save_pretrained(tmp_path)
    again = AUConditioner.from_pretrained(tmp_path)
    condition = FaceCondition.of([{12: 0.8, 9: 0.4}], ["fear"])
    assert tuple(again.config.taught) == (4, 12)
    assert torch.equal(tokens(conditioner, condition), tokens(again.eval(), condition))


def test_weights_with_other_units_are_refused() -> None:
    with pytest.raises(ModelError, match="24 action units"):
        AUConditioner(units=(1, 2, 4))
