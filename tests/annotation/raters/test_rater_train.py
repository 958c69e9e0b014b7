"""Train a network of 30,000 parameters on drawn faces for a few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from annotation.raters.network import RaterNetwork, Served, Shape, standardise
from annotation.raters.onnx_rater import OnnxRater
from annotation.raters.training import augment
from annotation.raters.training import train as training
from annotation.raters.training.dataset import RaterDataset, build_dataset
from annotation.raters.training.export import export
from annotation.raters.training.ferplus import Faces
from annotation.raters.training.train import Recipe, finish, predict, train
from tests.annotation.raters import drawn_ferplus
from warehouse.errors import ModelError, SettingsError
from warehouse.training import checkpoint
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

TINY = Recipe(minutes=0, steps=6, batch=32, widths=(8, 8, 16, 16), average=0.5)


class KilledError(Exception):
    """Stands for a kill between two steps."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread; on networks this small two mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(drawn: tuple[Faces, Faces]) -> RaterDataset:
    return build_dataset(*drawn)


def trained(dataset: RaterDataset, recipe: Recipe, out: Path, kill_at: int = -1) -> list[float]:
    """Train and return the losses of this session's steps."""
    losses: list[float] = []

    def progress(event: str, figures: dict[str, float]) -> None:
        if event == "step":
            losses.append(figures["loss"])
            if figures["step"] == kill_at:
                raise KilledError

    with suppress(KilledError):
        train(dataset, recipe, out, save_every_s=0, progress=progress)
    return losses


def test_train__killed_run_gives_the_same_weights(dataset: RaterDataset, tmp_path: Path) -> None:
    whole = trained(dataset, TINY, tmp_path / "whole")
    first = trained(dataset, TINY, tmp_path / "killed", kill_at=4)
    second = trained(dataset, TINY, tmp_path / "killed")
    assert len(whole) == 6
    assert first == whole[:4]
    # Step 4 was not saved before the kill and is repeated.
    assert second == whole[3:]
    one, two = (training.trained(tmp_path / name) for name in ("whole", "killed"))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name]), name


def test_train__finished_run_makes_no_step(dataset: RaterDataset, tmp_path: Path) -> None:
    assert len(trained(dataset, TINY, tmp_path)) == 6
    assert trained(dataset, TINY, tmp_path) == []


def test_train__other_recipe_is_refused(dataset: RaterDataset, tmp_path: Path) -> None:
    trained(dataset, TINY, tmp_path, kill_at=2)
    with pytest.raises(SettingsError, match=r"'seed': \(0, 7\)"):
        train(dataset, replace(TINY, seed=7), tmp_path)


def test_train__damaged_checkpoint(dataset: RaterDataset, tmp_path: Path) -> None:
    (tmp_path / checkpoint.FILE).write_bytes(b"PK no zip")
    with pytest.raises(ModelError, match=r"checkpoint .* cannot be read"):
        train(dataset, TINY, tmp_path)


def test_train__no_limit(dataset: RaterDataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--minutes or --steps"):
        train(dataset, Recipe(minutes=0, steps=0), tmp_path)


def test_train__separates_drawn_smiles(
    dataset: RaterDataset, drawn: tuple[Faces, Faces], tmp_path: Path
) -> None:
    valid = drawn[1]
    recipe = Recipe(minutes=0, steps=40, batch=32, widths=(8, 8, 16, 16), average=0.8)
    losses = trained(dataset, recipe, tmp_path)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    network = training.trained(tmp_path)
    logits, au = predict(network, augment.as_served(valid, side=64))
    happy = valid.shares[:, EXPRESSIONS.index("happiness")] > 0.5
    assert ((logits.argmax(axis=1) == EXPRESSIONS.index("happiness")) == happy).mean() > 0.9
    column = list(dataset.au_scale).index(12)
    assert au[happy, column].mean() > au[~happy, column].mean() + 0.1


def test_batch__depends_on_seed_and_step_alone(dataset: RaterDataset) -> None:
    options = {"size": 32, "side": 64, "seed": 0}
    rows, pixels = dataset.batch(5, **options)
    again, same_pixels = dataset.batch(5, **options)
    assert np.array_equal(rows, again)
    assert np.array_equal(pixels, same_pixels)
    assert not np.array_equal(rows, dataset.batch(4, **options)[0])
    assert not np.array_equal(rows, dataset.batch(5, **{**options, "seed": 1})[0])


def test_build_dataset__silent_units_are_left_out(dataset: RaterDataset) -> None:
    assert 6 not in dataset.au_scale
    assert 12 in dataset.au_scale
    assert np.isnan(dataset.train_au).any()


def test_served__mirrored_face() -> None:
    torch.manual_seed(0)
    served = Served(RaterNetwork(Shape(units=3)).eval(), temperature=1.3)
    gray = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        for one, two in zip(served(gray), served(gray.flip(-1)), strict=True):
            assert torch.allclose(one, two, atol=1e-5)
        face = gray.unsqueeze(1).float()
        alone = served.network(face)[0]
        assert not torch.allclose(alone, served.network(face.flip(-1))[0])


def test_standardise__removes_exposure_and_contrast() -> None:
    face = torch.rand(1, 1, 64, 64) * 200
    assert torch.allclose(standardise(face), standardise(face * 0.8 + 20), atol=0.05)
    assert standardise(torch.full((1, 1, 64, 64), 90.0)).abs().max() == 0


def test_export__same_ratings_as_the_run(
    dataset: RaterDataset, drawn: tuple[Faces, Faces], tmp_path: Path
) -> None:
    run = train(dataset, TINY, tmp_path / "run")
    results = finish(run, dataset, drawn[1])
    assert results["images"]["learned"] + results["images"]["held_out"] == 120
    weights = tmp_path / "weights" / "drawn.onnx"
    card = export(tmp_path / "run", weights, model="drawn")
    # The exporter's stack traces hold paths of this machine.
    assert b"site-packages" not in weights.read_bytes()
    assert b"forward" not in weights.read_bytes()
    rater = OnnxRater(weights)
    assert rater.rater_id == f"machine-drawn-{card['sha256'][:8]}"
    gray = augment.as_served(drawn[1], side=64)
    ratings = rater.rate(np.repeat(gray[:, :, :, None], 3, axis=3))
    logits, au = predict(training.trained(tmp_path / "run"), gray)
    shares = np.exp(logits / results["temperature"])
    shares /= shares.sum(axis=1, keepdims=True)
    assert np.allclose(ratings.answers, shares, atol=1e-4)
    assert np.allclose(ratings.au[:, [AU_INDEX[unit] for unit in dataset.au_scale]], au, atol=1e-4)
    assert np.isnan(ratings.au[:, AU_INDEX[6]]).all()
    assert not {"valence", "arousal"} & set(json.loads(weights.with_suffix(".json").read_text()))


def test_export__unfinished_run(dataset: RaterDataset, tmp_path: Path) -> None:
    trained(dataset, TINY, tmp_path / "run", kill_at=2)
    with pytest.raises(ModelError, match="then export"):
        export(tmp_path / "run", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_main__parquet_to_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, seed in (("train", 0), ("valid", 1)):
        drawn_ferplus.write_ferplus(tmp_path, split, 60, seed=seed)
    training.main(
        ["--data", str(tmp_path), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c"),
         "--find", f"{drawn_ferplus.__name__}:find_drawn", "--workers", "0", "--minutes", "0",
         "--steps", "2", "--batch", "16", "--widths", "8", "8", "16", "16"]
    )  # fmt: skip
    assert "precision" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["steps"] == 2
    assert {"date", "commit", "hardware"} <= set(results)
