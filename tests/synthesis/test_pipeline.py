"""The pipeline on a small random network."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler
from safetensors.torch import load_file, save_file

from synthesis import sampler
from synthesis.guidance import Term
from synthesis.pipeline import FaceAUPipeline
from tests.synthesis.tiny_models import SIDE, SUPPORTED, TinyGuide, pixel_pipeline, quiet
from warehouse.errors import MediaError, ModelError, SettingsError


@pytest.fixture(scope="module")
def pipeline() -> FaceAUPipeline:
    torch.set_num_threads(1)
    return pixel_pipeline()


def _draw(pipeline: FaceAUPipeline, *args: Any, **options: Any) -> np.ndarray:
    return pipeline(*args, **{"num_inference_steps": 4, "output_type": "array", **options}).images


def test_call__labels(pipeline: FaceAUPipeline) -> None:
    asked = [{12: 0.8, 6: 0}, "AU4=C"]
    drawn = pipeline(
        asked,
        ["happy", {"fear": 0.25, "anger": 0.75}],
        num_images_per_prompt=2,
        generator=5,
        num_inference_steps=2,
    )
    assert [image.size for image in drawn.images] == [(SIDE, SIDE)] * 4
    assert drawn.labels == [
        {"au": au, "expression": expression, "unsupported": {}, "seed": seed}
        for au, expression in [
            ({12: 0.8, 6: 0}, {"happiness": 1}),
            ({4: 0.5}, {"anger": 0.75, "fear": 0.25}),
        ]
        for seed in (5, 6)
    ]


def test_call__seed_independent_of_batch(pipeline: FaceAUPipeline) -> None:
    asked = [{12: 0.9}, {4: 0.4, 15: 1.0}, {}, {26: 0.7}, {1: 0.2}]
    expressions = ["happiness", None, "anger", None, "fear"]
    together = _draw(pipeline, asked, expressions, generator=[3, 1, 4, 1, 5], batch_size=3)
    assert len({face.tobytes() for face in together}) == 5
    for row, seed in enumerate([3, 1, 4, 1, 5]):
        alone = _draw(pipeline, asked[row], expressions[row], generator=seed)[0]
        # A matrix product may round the last bit differently in another batch.
        off = np.abs(alone.astype(int) - together[row])
        assert off.max() <= 1
        assert (off > 0).mean() < 0.01
    assert np.array_equal(
        together, _draw(pipeline, asked, expressions, generator=[3, 1, 4, 1, 5], batch_size=3)
    )


def test_call__stochastic_scheduler_uses_a_generator_per_face(pipeline: FaceAUPipeline) -> None:
    options = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    ancestral = quiet(
        FaceAUPipeline(
            **{
                **pipeline.components,
                "scheduler": EulerAncestralDiscreteScheduler(**options),
            }
        )
    )
    together = _draw(ancestral, {12: 1}, num_images_per_prompt=2, generator=[7, 8])
    alone = _draw(ancestral, {12: 1}, generator=8)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize(
    ("seed", "n", "expected"),
    [
        (5, 3, [5, 6, 7, 5, 6, 7]),
        ([9, 1], 2, [9, 1, 9, 1]),
        ([4, 3, 2, 1], 2, [4, 3, 2, 1]),
        (np.int64(2), 1, [2, 2]),
    ],
)
def test_call__seeds(pipeline: FaceAUPipeline, seed: Any, n: int, expected: list[int]) -> None:
    drawn = pipeline(
        [{12: 1}, {4: 1}],
        num_images_per_prompt=n,
        generator=seed,
        num_inference_steps=1,
        output_type="array",
    )
    assert [label["seed"] for label in drawn.labels] == expected


def test_call__one_condition_for_all(pipeline: FaceAUPipeline) -> None:
    drawn = pipeline({12: 0.5}, ["fear", "anger", None], num_inference_steps=1, output_type="array")
    assert [label["au"] for label in drawn.labels] == [{12: 0.5}] * 3
    distribution = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    drawn = pipeline([{12: 0.5}, {}], distribution, num_inference_steps=1, output_type="array")
    assert drawn.labels[1]["expression"] == {"neutral": 0.5, "happiness": 0.5}


@pytest.mark.parametrize(
    ("scales", "interval", "rows"),
    [
        ((1.0, None), (0, 1), [1, 1, 1]),
        ((2.0, None), (0, 1), [2, 2, 2]),
        ((2.0, 3.0), (0, 1), [3, 3, 3]),
        ((0.0, None), (0, 1), [1, 1, 1]),
        ((2.0, None), (0.3, 0.6), [1, 2, 1]),
        ((2.0, None), (1, 1), [1, 1, 1]),
    ],
)
def test_call__evaluations_per_step(
    pipeline: FaceAUPipeline,
    monkeypatch: pytest.MonkeyPatch,
    scales: Any,
    interval: tuple[float, float],
    rows: list[int],
) -> None:
    seen, model_output = [], sampler.model_output
    monkeypatch.setattr(
        sampler,
        "model_output",
        lambda unet, x, t, c: (seen.append(len(x)), model_output(unet, x, t, c))[1],
    )
    _draw(
        pipeline,
        {12: 1},
        "fear",
        guidance_scale=scales[0],
        au_guidance_scale=scales[1],
        guidance_start=interval[0],
        guidance_end=interval[1],
        num_inference_steps=3,
    )
    assert seen == rows


def test_call__precision_that_the_device_lacks(
    pipeline: FaceAUPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(sampler, "model_output", fail)
    with pytest.raises(ModelError, match=r"cpu does not compute in torch\.float32.*to\(torch"):
        _draw(pipeline, {12: 1})


def test_call__no_step_guided_is_scale_one(pipeline: FaceAUPipeline) -> None:
    outside = _draw(pipeline, {12: 1}, "fear", guidance_scale=4.0, guidance_start=1.0)
    assert np.array_equal(outside, _draw(pipeline, {12: 1}, "fear", guidance_scale=1.0))


def test_guided_output__formula(pipeline: FaceAUPipeline) -> None:
    """Checked against three separate evaluations combined by hand."""
    from synthesis.condition import FaceCondition
    from synthesis.guidance import guidance_terms
    from synthesis.request import FaceRequest
    from synthesis.sampler import model_output, random_noise, seeded_generators

    ours = pipeline.sampler(terms=guidance_terms(1.5, 4.0))
    condition = FaceCondition.of([FaceRequest({12: 1.0}, "fear")])
    noisy = random_noise(seeded_generators([1]), (4, 8, 8))
    with torch.no_grad():
        nothing, expression, full = (
            model_output(pipeline.unet, noisy, 500, ours.embed(condition, Term(1, *parts)))
            for parts in ((False, False), (True, False), (True, True))
        )
        wanted = nothing + 1.5 * (expression - nothing) + 4 * (full - expression)
        embeddings = [ours.embed(condition, term) for term in ours.terms]
        output = ours._guided_output(ours.terms, embeddings, noisy, 500)
    assert torch.allclose(output, wanted, atol=1e-4)
    assert (full - expression).abs().max() > 1e-3


def test_call__zero_is_not_unknown(pipeline: FaceAUPipeline) -> None:
    faces = _draw(pipeline, [{12: 0.0, 6: 1.0}, {6: 1.0}, {12: 1.0, 6: 1.0}], generator=0)
    assert len({face.tobytes() for face in faces}) == 3


def test_call__unsupported_units_warn(pipeline: FaceAUPipeline) -> None:
    with pytest.warns(UserWarning, match="does not support AU11, AU23"):
        drawn = pipeline({12: 0.5, 23: 1, 11: 1}, num_inference_steps=2, output_type="array")
    assert drawn.labels[0]["au"] == {12: 0.5}
    assert drawn.labels[0]["unsupported"] == {23: 1, 11: 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plain = pipeline({12: 0.5}, num_inference_steps=2, output_type="array")
    assert np.array_equal(drawn.images, plain.images)


def test_call__semantic_guidance_raises_the_target(pipeline: FaceAUPipeline) -> None:
    guide = TinyGuide()
    asked = {"au": [{12: 1.0}] * 6, "expression": "fear", "generator": list(range(6))}
    plain = _draw(pipeline, **asked, num_inference_steps=10)
    steered = _draw(
        pipeline, **asked, num_inference_steps=10, guide=guide, guide_strength=0.5, guide_au=True
    )

    def fear(images: np.ndarray) -> float:
        return float(guide(torch.from_numpy(images)[:, None].float())[0][:, 6].mean())

    assert fear(steered) > fear(plain)
    alone = _draw(
        pipeline,
        {12: 1.0},
        "fear",
        generator=4,
        num_inference_steps=10,
        guide=guide,
        guide_strength=0.5,
        guide_au=True,
    )
    assert np.abs(alone[0].astype(int) - steered[4]).max() <= 1


def test_call__guide_without_target(pipeline: FaceAUPipeline) -> None:
    assert np.array_equal(
        _draw(pipeline, {12: 1.0}, generator=1),
        _draw(pipeline, {12: 1.0}, generator=1, guide=TinyGuide()),
    )


def test_call__callback_on_step_end(pipeline: FaceAUPipeline) -> None:
    steps = []

    def callback(own: Any, step: int, moment: float, tensors: dict) -> dict | None:
        assert own is pipeline
        steps.append((step, moment, sorted(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 3 else None

    faces = _draw(pipeline, {12: 1}, callback_on_step_end=callback)
    assert [step for step, _, _ in steps] == [0, 1, 2, 3]
    assert [moment for _, moment, _ in steps] == [999, 749, 499, 249]
    assert steps[0][2] == ["latents", "tokens"]
    assert set(faces.ravel()) == {128}


def test_call__progress_bar(pipeline: FaceAUPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    _draw(pipeline, {12: 1})
    assert capsys.readouterr().err == ""
    pipeline.set_progress_bar_config(disable=False)
    try:
        _draw(pipeline, [{12: 1}] * 3, batch_size=2)
    finally:
        pipeline.set_progress_bar_config(disable=True)
    assert "8/8" in capsys.readouterr().err


def _picture() -> np.ndarray:
    ramp = np.linspace(0, 255, SIDE)
    return (ramp[:, None] * 0.5 + ramp[None] * 0.5).astype(np.uint8)


@pytest.mark.parametrize("layout", ["sdedit", "invert"])
def test_call__strength_of_reference(pipeline: FaceAUPipeline, layout: str) -> None:
    def distance(strength: float) -> float:
        face = _draw(
            pipeline,
            {12: 1},
            reference=_picture(),
            strength=strength,
            layout=layout,
            num_inference_steps=10,
        )
        return float(np.abs(face[0].astype(int) - _picture()).mean())

    near, far = distance(0.1), distance(0.9)
    assert near < 20
    assert near < far


def test_call__inversion_reconstructs_the_reference(pipeline: FaceAUPipeline) -> None:
    """Invert and sample without guidance and without a request."""
    options = {
        "reference": _picture(),
        "layout": "invert",
        "num_inference_steps": 10,
        "guidance_scale": 0.0,
    }
    back = _draw(pipeline, {}, strength=0.6, **options)
    assert np.abs(back[0].astype(int) - _picture()).max() <= 3
    # The seed has no effect: no noise is drawn.
    assert np.array_equal(back, _draw(pipeline, {}, strength=0.6, generator=99, **options))


def test_call__references_per_face(pipeline: FaceAUPipeline) -> None:
    dark, light = np.zeros_like(_picture()), np.full_like(_picture(), 255)
    faces = _draw(
        pipeline, {12: 1}, num_images_per_prompt=2, reference=[dark, light], strength=0.25
    )
    assert faces[0].mean() < faces[1].mean()
    with pytest.raises(SettingsError, match="not 1 or 2"):
        _draw(pipeline, {12: 1}, num_images_per_prompt=2, reference=[dark] * 3)
    with pytest.raises(MediaError, match="No face is found"):
        _draw(pipeline, {12: 1}, reference=dark, find=lambda image: [])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"au": {3: 1.0}}, "AU1, AU2, AU4"),
        ({"au": {12: 1.1}}, "AU12 is not in 0..1"),
        ({"au": {12: float("nan")}}, "AU12 is not in 0..1"),
        ({"au": {26: 0.1, 27: 0.1}}, "AU26 and AU27"),
        ({"au": {43: 1, 5: 1}}, "AU43 and AU5"),
        ({"au": "AU12"}, "UNIT=INTENSITY"),
        ({"au": 12}, "request none"),
        ({"au": []}, "0 sets of action units"),
        ({"expression": "smugness"}, "contempt"),
        ({"expression": "unknown"}, "contempt"),
        ({"expression": {"fear": 0.3}}, "sum to 1"),
        ({"au": [{}] * 2, "expression": ["fear"] * 3}, "2 sets of action units and 3"),
        ({"num_images_per_prompt": 0}, "1 to"),
        ({"generator": -1}, "from 0 up"),
        ({"generator": 0.5}, "from 0 up"),
        ({"generator": True}, "from 0 up"),
        ({"generator": [1, 2]}, "2 seeds"),
        ({"num_inference_steps": 0}, "1 to 1000"),
        ({"num_inference_steps": 1001}, "1 to 1000"),
        ({"guidance_scale": -1}, "guidance_scale is not"),
        ({"guidance_start": 0.7, "guidance_end": 0.2}, "in this order"),
        ({"guidance_end": 1.5}, "in this order"),
        ({"guidance_start": float("nan")}, "in this order"),
        ({"reference": _picture(), "strength": 0}, "strength is not above 0"),
        ({"reference": _picture(), "layout": "copy"}, "sdedit"),
        ({"output_type": "jpeg"}, "array"),
        ({"batch_size": 0}, "batch"),
        ({"prompt": "a smile"}, "reads no text"),
        ({"guide": TinyGuide(), "guide_strength": 2}, "guide_strength"),
    ],
)
def test_call__invalid_arguments(
    pipeline: FaceAUPipeline, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        pipeline(**{"au": {12: 1.0}, "num_inference_steps": 2, **options})


def test_save_pretrained__round_trip(pipeline: FaceAUPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    again = quiet(FaceAUPipeline.from_pretrained(tmp_path))
    asked = {"au": [{12: 0.7}, {}], "expression": ["fear", None], "generator": 3}
    assert np.array_equal(_draw(pipeline, **asked), _draw(again, **asked))
    assert tuple(again.conditioner.config.supported) == SUPPORTED
    # A limit of diffusers, which looks for pipeline classes in itself only.
    with pytest.raises(AttributeError, match="FaceAUPipeline"):
        DiffusionPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"format_version": None}, "format version None"),
        ({"_class_name": "StableDiffusionPipeline"}, "from_stable_diffusion"),
        ({"conditioner": ["synthesis.missing", "AUConditioner"]}, "cannot be loaded"),
    ],
)
def test_from_pretrained__other_kind(
    pipeline: FaceAUPipeline, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(ModelError, match=says):
        FaceAUPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "model_index"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "model_index"),
        (lambda folder: (folder / _WEIGHTS).unlink(), "cannot be loaded"),
        (lambda folder: (folder / _WEIGHTS).write_bytes(b"cut short"), "cannot be loaded"),
        (lambda folder: _thin(folder / _WEIGHTS), "1 missing, the first conv_in.bias"),
    ],
)
def test_from_pretrained__damaged(
    pipeline: FaceAUPipeline, tmp_path: Path, harm: Any, says: str
) -> None:
    pipeline.save_pretrained(tmp_path)
    harm(tmp_path)
    with pytest.raises(ModelError, match=says) as caught:
        FaceAUPipeline.from_pretrained(tmp_path)
    assert str(tmp_path.parent) not in str(caught.value)


def _thin(file: Path) -> None:
    weights = load_file(file)
    del weights["conv_in.bias"]
    save_file(weights, file, metadata={"format": "pt"})


_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_init__incompatible_components(pipeline: FaceAUPipeline) -> None:
    parts = pipeline.components
    with pytest.raises(ModelError, match="codec or a VAE"):
        FaceAUPipeline(**{**parts, "codec": None})
    with pytest.raises(ModelError, match="tokenizer together"):
        FaceAUPipeline(**{**parts, "text_encoder": parts["unet"]})


def test_call__old_argument_names_warn(pipeline: FaceAUPipeline) -> None:
    new = _draw(pipeline, {12: 1}, num_images_per_prompt=2, generator=3, guidance_scale=1.5)
    with pytest.warns(DeprecationWarning, match="steps is now num_inference_steps"):
        old = pipeline({12: 1}, n=2, seed=3, steps=4, guidance=1.5, output="array").images
    assert np.array_equal(new, old)
    with pytest.raises(TypeError, match="same argument"):
        _draw(pipeline, {12: 1}, steps=4)
    with pytest.raises(TypeError, match="stepps"):
        _draw(pipeline, {12: 1}, stepps=4)


def test_call__torch_generators(pipeline: FaceAUPipeline) -> None:
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    seeds = _draw(pipeline, {12: 1}, num_images_per_prompt=2, generator=[3, 8])
    two = pipeline({12: 1}, num_images_per_prompt=2, num_inference_steps=4,
                   generator=generators(3, 8), output_type="np")  # fmt: skip
    assert two.images.shape == (2, SIDE, SIDE, 1)
    assert np.array_equal((two.images[..., 0] * 255).round(), seeds)
    assert [label["seed"] for label in two.labels] == [3, 8]
    one = _draw(pipeline, {12: 1}, num_images_per_prompt=2, generator=generators(3)[0])
    assert np.array_equal(one[0], seeds[0])
    assert not np.array_equal(one[0], one[1])
    with pytest.raises(SettingsError, match="not 1 or 3"):
        _draw(pipeline, {12: 1}, num_images_per_prompt=3, generator=generators(1, 2))


@pytest.mark.parametrize(
    ("part", "module"),
    [("codec", "synthesis.codec"), ("conditioner", "synthesis.conditioner")],
)
def test_from_pretrained__modules_of_older_versions(
    pipeline: FaceAUPipeline, tmp_path: Path, part: str, module: str
) -> None:
    pipeline.save_pretrained(tmp_path)
    path = tmp_path / "model_index.json"
    index = json.loads(path.read_text())
    index[part][0] = module
    path.write_text(json.dumps(index))
    again = quiet(FaceAUPipeline.from_pretrained(tmp_path))
    assert np.array_equal(_draw(pipeline, {12: 1}), _draw(again, {12: 1}))
