"""The expression head of the generator, on a tiny network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from synthesis.condition import FaceCondition
from synthesis.expression_head import Annotator, Head, observe, train
from synthesis.request import FaceRequest
from tests.synthesis.tiny_models import SIDE, UNITS, faces, pixel_pipeline
from warehouse.errors import ModelError

TOKENS = len(UNITS) + 1


@pytest.fixture(scope="module")
def pipeline():
    return pixel_pipeline()


def test_observe__network_unchanged(pipeline) -> None:
    condition = FaceCondition.of([FaceRequest({12: 0.5}, "happiness")])
    tokens, pooled = pipeline.conditioner(condition)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def answer() -> torch.Tensor:
        return pipeline.unet(noisy, 20, encoder_hidden_states=tokens, class_labels=pooled).sample

    before, processors = answer(), dict(pipeline.unet.attn_processors)
    gray = faces(3).gray
    features, maps = observe(pipeline, gray)
    assert torch.equal(answer(), before)
    assert {name: type(one) for name, one in pipeline.unet.attn_processors.items()} == {
        name: type(one) for name, one in processors.items()
    }
    layers = sum(".attn2." in name for name in processors)
    assert maps.shape == (3, TOKENS, layers * 16)
    assert features.shape[:2] == (3, 16)
    # Over the tokens of a request, the shares of attention at a place sum to one.
    torch.testing.assert_close(maps.sum(dim=1), torch.ones(3, layers * 16))


def test_observe__attention_is_exact(pipeline) -> None:
    from synthesis import expression_head

    tokens, pooled = pipeline.conditioner(
        FaceCondition.of([FaceRequest({12: 0.5}), FaceRequest({4: 1.0}, "fear")])
    )
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    say = {"encoder_hidden_states": tokens, "class_labels": pooled}
    with torch.no_grad():
        plain = pipeline.unet(noisy, 400, **say).sample
        with expression_head._watched(pipeline.unet):
            watched = pipeline.unet(noisy, 400, **say).sample
    torch.testing.assert_close(plain, watched, atol=1e-5, rtol=1e-4)


def test_observe__independent_of_batch(pipeline) -> None:
    gray = faces(5).gray
    alone, together = observe(pipeline, gray[2:3]), observe(pipeline, gray)
    for one, many in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], many[2], atol=1e-5, rtol=1e-4)


def test_train__learns_and_reloads(pipeline, tmp_path: Path) -> None:
    """Bright below or bright above is two expressions; chance is one half."""
    base = faces(120)
    below = np.arange(len(base)) % 2 == 0
    ramp = np.linspace(0, 250, SIDE).astype(np.uint8)
    gray = np.where(below[:, None, None], ramp[None, :, None], ramp[None, ::-1, None])
    gray = np.broadcast_to(gray, (len(base), SIDE, SIDE)).copy()
    label = np.eye(8, dtype=np.float32)[np.where(below, 1, 4)]
    digest = np.array([f"{row:056x}{row * 35_791_394:08x}" for row in range(len(base))])
    dataset = dataclasses.replace(base, gray=gray, expression=label, digest=digest)
    annotator, found = train(pipeline, dataset, minutes=0, steps=40)
    assert found["held_out"] > 0
    answers = annotator.rate(gray)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    assert (answers.argmax(axis=1) == label.argmax(axis=1)).mean() > 0.95
    annotator.save(tmp_path, found)
    again = Annotator.load(tmp_path, pipeline)
    np.testing.assert_array_equal(again.rate(gray[:9]), annotator.rate(gray[:9]))
    assert again.rate(gray[:0]).shape == (0, 8)


def test_annotator__other_network(pipeline, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        Annotator.load(tmp_path, pipeline)
    Annotator(pipeline, Head(channels=3, tokens=2, layers=1)).save(tmp_path, {})
    with pytest.raises(ModelError, match="does not fit this network"):
        Annotator.load(tmp_path, pipeline)
