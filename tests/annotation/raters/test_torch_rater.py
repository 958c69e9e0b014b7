from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from annotation import raters
from annotation.raters import torch_rater
from annotation.raters.onnx_rater import SHIPPED, weights_of
from warehouse.errors import ModelError
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

HAPPY = EXPRESSIONS.index("happiness")


@pytest.mark.parametrize("name", SHIPPED)
def test_forward__same_as_onnx(name: str) -> None:
    served, twin = raters.load(name), torch_rater.load(name)
    side = twin.served.network.shape.side
    faces = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    wanted = served.rate(np.repeat(faces[..., None], 3, axis=3))
    log_answers, au = twin(torch.from_numpy(faces).unsqueeze(1).float())
    assert twin.rater_id == served.rater_id
    assert np.allclose(log_answers.exp().numpy(), wanted.answers, atol=1e-5)
    assert np.allclose(au.numpy(), wanted.au, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("side", [40, 48, 64, 112])
def test_forward__gradient_raises_happiness(side: int) -> None:
    twin = torch_rater.load()
    torch.manual_seed(0)
    face = (torch.rand(1, 1, side, side) * 255).requires_grad_()
    before, au = twin(face)
    (before[0, HAPPY] + au[0, AU_INDEX[12]]).backward()
    assert torch.isfinite(face.grad).all()
    after, _ = twin(face.detach() + 20 * face.grad / face.grad.abs().max())
    assert after[0, HAPPY] > before[0, HAPPY] + 0.1


def test_train__stays_frozen_in_evaluation_mode() -> None:
    twin = torch_rater.load()
    twin.train()
    assert not twin.training
    assert not twin.served.network.training
    assert not any(weight.requires_grad for weight in twin.parameters())


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("blocks", [1, 2, 2, 2], "are not those of this network"),
        ("widths", [48, 96, 192, 256], "of another shape"),
        ("units", 17, "of another shape"),
        ("colour", True, "does not describe a network"),
        ("architecture", "unknown", "architecture is none of"),
    ],
)
def test_load__weights_of_another_network(
    tmp_path: Path, name: str, value: object, problem: str
) -> None:
    path = tmp_path / "other.onnx"
    shutil.copy(weights_of("default"), path)
    card = json.loads(weights_of("default").with_suffix(".json").read_text())
    card["shape"][name] = value
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=problem):
        torch_rater.load(str(path))
