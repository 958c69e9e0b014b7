"""Train a network of 30,000 parameters on drawn faces for a few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from annotation.raters.network import RaterNetwork, Served, Shape, standardise
from annotation.raters.onnx_rater import OnnxRater
from annotation.raters.training import augment, distill, prepare
from annotation.raters.training import train as training
from annotation.raters.training.dataset import (
    Batch,
    Batches,
    RaterDataset,
    UniqueFaces,
    build_dataset,
)
from annotation.raters.training.export import export
from annotation.raters.training.ferplus import Faces
from annotation.raters.training.recipe import RECIPES, Recipe
from annotation.raters.training.train import finish, predict, train
from tests.annotation.raters import drawn_ferplus
from warehouse.errors import ModelError, SettingsError, TableError
from warehouse.training import checkpoint
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
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
            losses.append(float(figures["loss"]))
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
    one, two = (distill.trained(tmp_path / name) for name in ("whole", "killed"))
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
    network = distill.trained(tmp_path)
    logits, au = predict(network, augment.as_served(valid, side=64))
    happy = valid.shares[:, EXPRESSIONS.index("happiness")] > 0.5
    assert ((logits.argmax(axis=1) == EXPRESSIONS.index("happiness")) == happy).mean() > 0.9
    column = list(dataset.au_scale).index(12)
    assert au[happy, column].mean() > au[~happy, column].mean() + 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mix", [0.0, 0.5])
def test_batch__depends_on_seed_and_step_alone(
    dataset: RaterDataset, device: str, mix: float
) -> None:
    batches = Batches(dataset, device)

    def faces(step: int, seed: int) -> torch.Tensor:
        return batches.batch(step, size=32, side=64, seed=seed, mix=mix).face

    assert torch.equal(faces(5, 0), faces(5, 0))
    assert torch.equal(faces(5, 0), Batches(dataset, device).batch(
        5, size=32, side=64, seed=0, mix=mix).face)  # fmt: skip
    assert not torch.equal(faces(5, 0), faces(4, 0))
    assert not torch.equal(faces(5, 0), faces(5, 1))
    assert faces(5, 0).device.type == device


def test_batch__mixed_faces_share_their_votes(dataset: RaterDataset) -> None:
    batch = Batches(dataset, "cpu").batch(0, size=32, side=64, seed=0, mix=0.5)
    assert torch.allclose(batch.shares.sum(dim=1), torch.ones(32))
    assert torch.isnan(batch.au[:16]).all()
    assert torch.isfinite(batch.au[16:]).any()
    # Drawn faces have two patterns of votes; a mixture of both has a third.
    plain = dataset.train.shares.max(axis=1).tolist()
    assert set(batch.shares[16:].amax(dim=1).tolist()) <= set(plain)
    assert not set(batch.shares[:16].amax(dim=1).tolist()) <= set(plain)


@pytest.mark.parametrize("device", DEVICES)
def test_train__teacher_and_start_on_each_device(
    dataset: RaterDataset, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command trains the teacher, then the rater on the teacher's view."""
    precision = "bf16" if device == "cuda" else "fp32"
    how: dict[str, Any] = {"device": device, "precision": precision}
    monkeypatch.setitem(RECIPES, "tiny-teacher", replace(TINY, widths=(8, 8, 16, 24), side=48))
    recipe = replace(TINY, steps=2, mix=0.5, teachers=("tiny-teacher",))
    teachers = training.load_teachers(dataset, recipe, tmp_path / "run", **how)
    run = train(dataset, recipe, tmp_path / "run", teachers=teachers, **how)
    assert run.device == device
    assert [one.name for one in teachers] == ["recipe tiny-teacher"]
    stage = checkpoint.load(tmp_path / "run" / "teacher-1-tiny-teacher")
    assert (stage["step"], stage["recipe"]["seed"]) == (2, TINY.seed + 100)
    assert checkpoint.finished(tmp_path / "run", recipe)
    checkpoint.strip(tmp_path / "run", tmp_path / "slim")
    # A stripped run teaches, is begun with and is exported, but not continued.
    again = replace(recipe, teachers=(str(tmp_path / "slim"),), start=str(tmp_path / "slim"))
    start = distill.load_rater(again.start, again, dataset)
    teachers = training.load_teachers(dataset, again, tmp_path / "again", **how)
    other = train(dataset, again, tmp_path / "again", teachers=teachers, start=start, **how)
    assert other.about["started_from"] == "run slim"
    with pytest.raises(ModelError, match="without optimizer"):
        train(dataset, recipe, tmp_path / "slim", **how)


def test_teach__averages_teachers_at_their_own_side() -> None:
    torch.manual_seed(0)
    networks = [RaterNetwork(Shape(units=3, side=side)).eval() for side in (64, 48)]
    face = torch.randint(0, 256, (2, 1, 64, 64)).float()
    answers, au = distill.teach(networks, face)
    alone = [distill.teach([network], face) for network in networks]
    assert torch.allclose(answers, (alone[0][0] + alone[1][0]) / 2)
    assert torch.allclose(answers.sum(dim=1), torch.ones(2))
    assert au.shape == (2, 3)


def test_rater_loss__teacher_fills_in_unknown_units() -> None:
    logits, au_logits = torch.zeros(2, 10), torch.zeros(2, 1)
    shares = torch.eye(10)[:2]
    batch = Batch(torch.zeros(2, 1, 4, 4), shares, torch.tensor([[1.0], [float("nan")]]))
    alone = training.rater_loss(logits, au_logits, batch)
    assert float(alone) == pytest.approx(np.log(10) + 0.5 * np.log(2))
    sure = torch.full((2, 1), 20.0)
    half = training.rater_loss(logits, sure, batch, shares, torch.zeros(2, 1), weight=0.5)
    # Known: half 1, half 0. Unknown: the teacher's 0 alone.
    assert float(half) == pytest.approx(np.log(10) + 0.5 * (10 + 20) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "part", "problem"),
    [("default", "1/2", "outside fold 1/2"), ("judge", "1/2", "outside fold 1/2"),
     ("guide", "1/2", "other action units")],
)  # fmt: skip
def test_load_rater__unfit_teacher(
    dataset: RaterDataset, name: str, part: str, problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        distill.load_rater(name, replace(TINY, part=part), dataset)


def test_train__start_of_another_shape(dataset: RaterDataset, tmp_path: Path) -> None:
    train(dataset, replace(TINY, steps=1), tmp_path / "run")
    wider = replace(TINY, widths=(8, 8, 16, 32))
    start = distill.load_rater(str(tmp_path / "run"), TINY, dataset)
    with pytest.raises(ModelError, match=r"run run are not those.*of another shape"):
        train(dataset, wider, tmp_path / "wider", start=start)


def test_prepared_faces__the_same_dataset(
    drawn: tuple[Faces, Faces], dataset: RaterDataset, tmp_path: Path
) -> None:
    unique = UniqueFaces.of(*drawn)
    unique.save(tmp_path / "faces.npz")
    again = UniqueFaces.load(tmp_path / "faces.npz").part()
    assert np.array_equal(again.train.gray, dataset.train.gray)
    assert np.array_equal(again.train.digests, dataset.train.digests)
    assert np.array_equal(again.held_out.votes, dataset.held_out.votes)
    assert np.allclose(again.train_au, dataset.train_au, atol=2e-3, equal_nan=True)
    assert list(again.au_scale) == list(dataset.au_scale)
    data = (tmp_path / "faces.npz").read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"no zip at all"):
        (tmp_path / "bad.npz").write_bytes(damaged)
        with pytest.raises(TableError, match=r"bad\.npz is not a file of prepared faces"):
            UniqueFaces.load(tmp_path / "bad.npz")


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
    train(dataset, TINY, tmp_path / "run")
    results = finish(tmp_path / "run", dataset, drawn[1])
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
    logits, au = predict(distill.trained(tmp_path / "run"), gray)
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


@pytest.mark.slow
def test_main__prepared_file_then_folder_to_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, seed in (("train", 0), ("valid", 1)):
        drawn_ferplus.write_ferplus(tmp_path, split, 60, seed=seed)
    source = ["--cache", str(tmp_path / "c"), "--find", f"{drawn_ferplus.__name__}:find_drawn",
              "--workers", "0"]  # fmt: skip
    prepare.main(["--data", str(tmp_path), "--out", str(tmp_path / "faces.npz"), *source])
    recipe = ["--out", str(tmp_path / "run"), "--minutes", "0", "--steps", "2", "--batch", "16",
              "--widths", "8", "8", "16", "16", "--device", "cpu"]  # fmt: skip
    training.main(["--data", str(tmp_path / "faces.npz"), *recipe])
    assert "start again with the folder" in capsys.readouterr().out
    assert not (tmp_path / "run" / "results.json").exists()
    training.main(["--data", str(tmp_path), *recipe, *source])
    assert "start " not in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["steps"] == 2
    assert {"date", "commit", "hardware"} <= set(results)
