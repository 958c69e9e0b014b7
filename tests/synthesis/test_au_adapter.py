"""The AU adapter, on a small Stable Diffusion of random weights.

The text encoder and tokenizer are the tests' own, of the interface of CLIP's; where
``transformers`` is installed, the same tests run on its real CLIP classes too.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from synthesis import au_adapter
from synthesis.pipeline import FaceAUPipeline
from synthesis.training import train_adapter
from synthesis.training.dataset import FaceDataset
from tests.synthesis.tiny_models import (
    SIDE,
    SUPPORTED,
    WIDTH,
    TinyGuide,
    faces,
    pixel_pipeline,
    quiet,
    stable_diffusion,
)
from warehouse.errors import ModelError, SettingsError
from warehouse.training.checkpoint import Run

_ASKED = {
    "au": [{12: 0.9}, {4: 0.6}],
    "expression": ["happiness", None],
    "generator": 2,
    "num_inference_steps": 3,
}


def _clip(folder: Path) -> tuple[Any, Any]:
    """CLIP's own classes with random weights and an alphabet for a vocabulary."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=40
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    return transformers.CLIPTextModel(config), tokenizer


_ENCODERS = ["own encoder", pytest.param("CLIP", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=_ENCODERS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion on disk, in diffusers layout."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("stable-diffusion")
    encoder = _clip(tmp_path_factory.mktemp("clip")) if request.param == "CLIP" else None
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    for name, part in stable_diffusion(encoder=encoder).items():
        part.save_pretrained(folder / name)
        library = type(part).__module__.split(".")[0]
        library = library if library in ("diffusers", "transformers") else type(part).__module__
        index[name] = [library, type(part).__name__]
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _pipeline(base: Path, folder: Path | None = None, **options: Any) -> FaceAUPipeline:
    torch.manual_seed(0)
    return quiet(FaceAUPipeline.from_stable_diffusion(base, folder, **options))


def _recipe(**options: Any) -> Any:
    values = {"steps": 30, "batch": 8, "rate": 5e-3, **options}
    return train_adapter.adapter_recipe(**values)


def _losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.history]


@pytest.fixture(scope="module")
def trained(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FaceAUPipeline, Path, list[float]]:
    out = tmp_path_factory.mktemp("run")
    pipeline = _pipeline(base, supported=SUPPORTED)
    dataset = FaceDataset(faces(), balance=0.5)
    run = train_adapter.train(pipeline, dataset, _recipe(), out, report_every=1)
    return pipeline, out, _losses(run)


def _images(pipeline: FaceAUPipeline, **options: Any) -> np.ndarray:
    return pipeline(**{**_ASKED, "output_type": "array", **options}).images


def test_adapter__untrained_changes_nothing(base: Path) -> None:
    pipeline = _pipeline(base)
    images = _images(pipeline, guidance_scale=4.0)
    assert images.shape == (2, SIDE, SIDE, 3)
    au_adapter.set_scale(pipeline.unet, 0.0)
    assert np.array_equal(images, _images(pipeline, guidance_scale=4.0))


def test_train_adapter__trains_the_adapter_only(
    base: Path, trained: tuple[FaceAUPipeline, Path, list[float]], tmp_path: Path
) -> None:
    pipeline, _, losses = trained
    untouched = _pipeline(base)
    dataset = FaceDataset(faces(), balance=0.5)
    fixed = [dataset.batch(_recipe(seed=9), step) for step in range(6)]

    def loss(of: FaceAUPipeline) -> float:
        run = train_adapter.open_run(of, _recipe(), tmp_path)
        loss_of = train_adapter.AdapterLoss(of, run)
        with torch.no_grad():
            return float(np.mean([float(loss_of(batch)[0]) for batch in fixed]))

    assert len(losses) == 30
    assert loss(pipeline) < loss(untouched)
    plain = {k: v for k, v in pipeline.unet.state_dict().items() if "_ip." not in k}
    before = untouched.unet.state_dict()
    assert all(torch.equal(before[key], weight) for key, weight in plain.items())
    for name in ("vae", "text_encoder"):
        parts = (getattr(of, name).parameters() for of in (pipeline, untouched))
        pairs = zip(*parts, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_adapter__tokens_matter(
    trained: tuple[FaceAUPipeline, Path, list[float]],
) -> None:
    pipeline, _, _ = trained
    # Only the AU tokens differ: the words of the prompt are the same.
    faint, strong = _images(
        pipeline, au=[{12: 0.0}, {12: 1.0}], expression=None, guidance_scale=5.0
    )
    assert not np.array_equal(faint, strong)
    name, branch = next(au_adapter.branches(pipeline.unet))
    assert branch.num_tokens == [25] or tuple(branch.num_tokens) == (25,), name


def test_adapter__save_and_load(
    base: Path, trained: tuple[FaceAUPipeline, Path, list[float]]
) -> None:
    pipeline, out, _ = trained
    files = sorted(
        str(path.relative_to(out / "adapter")) for path in (out / "adapter").rglob("*.*")
    )
    assert files == [
        "attention.safetensors",
        "conditioner/config.json",
        "conditioner/diffusion_pytorch_model.safetensors",
    ]
    again = _pipeline(base, out / "adapter")
    assert tuple(again.conditioner.config.supported) == SUPPORTED
    for scales in ({"guidance_scale": 4.0}, {"guidance_scale": 3.0, "au_guidance_scale": 5.0}):
        assert np.array_equal(_images(pipeline, **scales), _images(again, **scales))


def test_save_pretrained__with_adapter(
    trained: tuple[FaceAUPipeline, Path, list[float]], tmp_path: Path
) -> None:
    pipeline, _, _ = trained
    before = _images(pipeline)
    pipeline.save_pretrained(tmp_path)
    assert au_adapter.installed(pipeline.unet)
    assert np.array_equal(before, _images(pipeline))
    again = quiet(FaceAUPipeline.from_pretrained(tmp_path))
    assert np.array_equal(before, _images(again))
    # Where diffusers would have written the branches and dropped them on loading.
    with safe_open(tmp_path / "unet/diffusion_pytorch_model.safetensors", "pt") as file:
        assert not [key for key in file.keys() if "_ip." in key]  # noqa: SIM118


def test_train_adapter__resumes_after_kill(base: Path, tmp_path: Path) -> None:
    dataset, recipe = FaceDataset(faces(), balance=0.5), _recipe(steps=6)
    whole = train_adapter.train(
        _pipeline(base), dataset, recipe, tmp_path / "whole", report_every=1
    )

    class KilledError(Exception):
        pass

    def kill(event: str, figures: dict[str, float]) -> None:
        if event == "step" and figures["step"] == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train_adapter.train(
            _pipeline(base),
            dataset,
            recipe,
            tmp_path / "cut",
            save_every_s=0,
            report_every=1,
            progress=kill,
        )
    resumed = train_adapter.train(
        _pipeline(base), dataset, recipe, tmp_path / "cut", report_every=1
    )
    assert _losses(resumed) == _losses(whole)
    one, other = (
        load_file(tmp_path / name / "adapter/attention.safetensors") for name in ("whole", "cut")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(SettingsError, match=r"'batch': \(8, 4\)"):
        train_adapter.train(_pipeline(base), dataset, replace(recipe, batch=4), tmp_path / "cut")


def test_call__prompts(
    trained: tuple[FaceAUPipeline, Path, list[float]],
) -> None:
    pipeline, _, _ = trained
    implied = _images(pipeline, expression="fear", au={})
    said = _images(
        pipeline, expression="fear", au={}, prompt="a close-up photo of a face showing fear"
    )
    other = _images(pipeline, expression="fear", au={}, prompt="a drawing")
    assert np.array_equal(implied, said)
    assert not np.array_equal(implied, other)
    assert not np.array_equal(other, _images(
        pipeline, expression="fear", au={}, prompt="a drawing", negative_prompt="blur"
    ))  # fmt: skip
    with pytest.raises(SettingsError, match="prompts is not 1, 2"):
        _images(pipeline, prompt=["one", "two", "three"])


@pytest.mark.parametrize("layout", ["sdedit", "invert"])
def test_call__reference_and_guide_with_vae(
    trained: tuple[FaceAUPipeline, Path, list[float]], layout: str
) -> None:
    pipeline, _, _ = trained
    picture = np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3).astype(np.uint8)
    options = {"reference": picture, "layout": layout, "strength": 0.5, "num_inference_steps": 6}
    plain = _images(pipeline, **options)
    assert np.array_equal(plain, _images(pipeline, **options))
    guided = _images(pipeline, **options, guide=TinyGuide(), guide_strength=0.5, guide_au=True)
    assert not np.array_equal(plain, guided)


def _spoil(folder: Path, *, version: int = 1, change: Any = None) -> None:
    path = folder / au_adapter.WEIGHTS
    weights = load_file(path)
    if change:
        change(weights)
    about = {"risorius": json.dumps({"format_version": version, "tokens": 25})}
    save_file(weights, path, metadata=about)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: _spoil(folder, version=2), "format version 2"),
        (lambda folder: _spoil(folder, change=lambda w: w.popitem()), "1 layers that differ"),
        (
            lambda folder: _spoil(folder, change=lambda w: w.update(extra=torch.zeros(1))),
            "the first extra",
        ),
        (lambda folder: save_file({}, folder / au_adapter.WEIGHTS), "format version None"),
        (lambda folder: (folder / au_adapter.WEIGHTS).write_bytes(b"cut"), "unreadable"),
        (lambda folder: os.remove(folder / au_adapter.WEIGHTS), "unreadable"),
        (lambda folder: os.remove(folder / "conditioner/config.json"), "conditioner"),
    ],
)
def test_adapter__does_not_fit(
    base: Path,
    trained: tuple[FaceAUPipeline, Path, list[float]],
    tmp_path: Path,
    harm: Any,
    says: str,
) -> None:
    pipeline, _, _ = trained
    au_adapter.save(pipeline.unet, pipeline.conditioner, tmp_path / "adapter")
    harm(tmp_path / "adapter")
    with pytest.raises(ModelError, match=says):
        _pipeline(base, tmp_path / "adapter")


def test_adapter__unsuitable_network(base: Path, tmp_path: Path) -> None:
    plain = pixel_pipeline()
    with pytest.raises(ModelError, match="no AU adapter"):
        au_adapter.save(plain.unet, plain.conditioner, tmp_path)
    with pytest.raises(ModelError, match="not a Stable Diffusion with an AU adapter"):
        train_adapter.train(plain, FaceDataset(faces(), balance=0.5), _recipe(), tmp_path)
    plain.save_pretrained(tmp_path / "ours")
    with pytest.raises(ModelError, match="no folder with weights: missing"):
        FaceAUPipeline.from_stable_diffusion(tmp_path / "missing")
    with pytest.raises(ModelError, match="a Stable Diffusion"):
        FaceAUPipeline.from_stable_diffusion(tmp_path / "ours")
    with pytest.raises(ModelError, match="from_stable_diffusion"):
        FaceAUPipeline.from_pretrained(base)


def test_train_adapter__command(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(base), "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    options += [
        "--faces",
        f"{__name__}:given",
        "--steps",
        "2",
        "--batch",
        "4",
        "--precision",
        "fp32",
    ]
    train_adapter.main(options)
    said = capsys.readouterr().out
    assert "trained weights" in said
    again = _pipeline(base, tmp_path / "run/adapter")
    assert tuple(again.conditioner.config.supported) == (12,)


def given(folder: Path, *, side: int) -> Any:
    assert folder.is_dir()
    return faces(side=side // 16)
