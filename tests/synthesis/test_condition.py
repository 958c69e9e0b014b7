from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthesis.condition import AUConditioner, FaceCondition
from synthesis.request import FaceRequest
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

K = len(ACTION_UNITS)
SMILE = 1 + AU_INDEX[12]


@pytest.fixture(scope="module")
def conditioner() -> AUConditioner:
    torch.manual_seed(0)
    return AUConditioner(supported=(4, 12), width=16).eval()


def condition(*rows: Any) -> FaceCondition:
    return FaceCondition.of([FaceRequest(*row) for row in rows])


def tokens(conditioner: AUConditioner, rows: FaceCondition) -> torch.Tensor:
    with torch.no_grad():
        return conditioner(rows)[0]


def test_conditioner__one_token_per_unit_and_one_vector(conditioner: AUConditioner) -> None:
    rows, pooled = conditioner(condition(({12: 0.8}, "happy"), ({}, None)))
    assert rows.shape == (2, K + 1, 16)
    assert pooled.shape == (2, conditioner.pooled_width)
    assert torch.isfinite(rows).all()
    assert torch.isfinite(pooled).all()


def test_conditioner__unit_moves_its_own_token_only(conditioner: AUConditioner) -> None:
    rows = tokens(conditioner, condition(({12: 0.2}, None), ({12: 0.9}, None)))
    changed = (rows[0] - rows[1]).abs().amax(dim=1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [SMILE]


def test_conditioner__absent_unknown_and_null_differ(conditioner: AUConditioner) -> None:
    said = condition(({4: 0.5, 12: 0}, None), ({4: 0.5}, None))
    absent, unknown = tokens(conditioner, said)[:, SMILE]
    null = tokens(conditioner, said.without(expression=False))[0, SMILE]
    for one, two in ((absent, unknown), (absent, null), (unknown, null)):
        assert (one - two).abs().max() > 1e-3


def test_conditioner__unsupported_unit_is_unknown(conditioner: AUConditioner) -> None:
    rows, pooled = conditioner(condition(({12: 1, 9: 0.9}, None), ({12: 1}, None)))
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(pooled[0], pooled[1])


def test_without__one_side(conditioner: AUConditioner) -> None:
    both = condition(({12: 0.8}, "happiness"))
    only_au, only_label = both.without(au=False), both.without(expression=False)
    full = tokens(conditioner, both)
    assert torch.equal(tokens(conditioner, only_au)[:, 1:], full[:, 1:])
    assert torch.equal(tokens(conditioner, only_label)[:, 0], full[:, 0])
    neither = tokens(conditioner, both.without())
    assert torch.equal(neither, tokens(conditioner, FaceCondition.unconditional(1)))
    assert bool(both.without().null_au.all() and both.without().null_expression.all())


def test_conditioner__expression_token_replaced(conditioner: AUConditioner) -> None:
    both = condition(({12: 0.8}, "happiness"))
    other = torch.full((1, 16), 0.5, requires_grad=True)
    rows, _ = conditioner(both, expression_token=other)
    assert torch.equal(rows[:, 0], other)
    rows.square().sum().backward()
    assert other.grad is not None
    assert other.grad.abs().sum() > 0


def test_condition_of__name_shares_or_vector() -> None:
    vector = np.array([0, 0.5, 0.5, 0, 0, 0, 0, 0], dtype=np.float32)
    shares = {"happy": 0.5, "surprise": 0.5}
    rows = condition(*(({}, one) for one in ["Happiness", shares, vector, None]))
    assert rows.expression[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert torch.equal(rows.expression[1], rows.expression[2])
    assert rows.null_expression.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("au", "expression", "said"),
    [
        ({}, "bored", "neutral, happiness"),
        ({}, "unknown", "neutral, happiness"),
        ({}, {"happy": 0.5}, "sum to 1"),
        ({}, np.ones(3), "sum to 1"),
        ({}, np.array([2.0, -1, 0, 0, 0, 0, 0, 0]), "sum to 1"),
        ({99: 0.5}, None, "AU99"),
    ],
)
def test_condition_of__invalid(au: dict[int, float], expression: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        condition((au, expression))


def test_condition_of__no_faces(conditioner: AUConditioner) -> None:
    assert len(FaceCondition.of([])) == 0
    assert tokens(conditioner, FaceCondition.of([])).shape == (0, K + 1, 16)


def test_conditioner__saved_and_loaded(conditioner: AUConditioner, tmp_path: Path) -> None:
    conditioner.save_pretrained(tmp_path)
    again = AUConditioner.from_pretrained(tmp_path)
    both = condition(({12: 0.8, 9: 0.4}, "fear"))
    assert tuple(again.config.supported) == (4, 12)
    assert torch.equal(tokens(conditioner, both), tokens(again.eval(), both))


def test_conditioner__other_units() -> None:
    with pytest.raises(ModelError, match="24 action units"):
        AUConditioner(units=(1, 2, 4))


def test_conditioner__config_of_older_version(conditioner: AUConditioner, tmp_path: Path) -> None:
    conditioner.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["ta" + "ught"] = config.pop("supported")
    path.write_text(json.dumps(config))
    assert tuple(AUConditioner.from_pretrained(tmp_path).config.supported) == (4, 12)
