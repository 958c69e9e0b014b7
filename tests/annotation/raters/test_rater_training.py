"""Real training on drawn faces: a network of 30,000 parameters, a few steps, no mock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from annotation.raters.network import RaterNetwork, Served, Shape, standardise
from annotation.raters.onnx_rater import MachineRater
from annotation.raters.training import augment, checkpoint
from annotation.raters.training.config import Recipe
from annotation.raters.training.dataset import Lesson, batches, lesson_of
from annotation.raters.training.evaluate import finish, predict
from annotation.raters.training.export import export
from annotation.raters.training.ferplus import Faces
from annotation.raters.training.train import train
from tests.annotation.raters import ferplus_drawn
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

TINY = Recipe(minutes=0, steps=6, batch=32, widths=(8, 8, 16, 16), average=0.5)


class KilledError(Exception):
    """Stands for a signal between two steps."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads on networks this small mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lesson(drawn: tuple[Faces, Faces]) -> Lesson:
    return lesson_of(*drawn)


def trained(lesson: Lesson, recipe: Recipe, out: Path, kill_at: int = -1) -> list[float]:
    """The losses of the steps made in this sitting."""
    losses: list[float] = []

    def say(event: str, figures: dict[str, float]) -> None:
        if event == "step":
            losses.append(figures["loss"])
            if figures["step"] == kill_at:
                raise KilledError

    # What a kill leaves: everything since the last checkpoint is gone.
    with suppress(KilledError):
        train(lesson, recipe, out, save_every_s=0, say=say)
    return losses


def test_a_killed_run_continues_as_if_nothing_had_happened(lesson: Lesson, tmp_path: Path) -> None:
    whole = trained(lesson, TINY, tmp_path / "whole")
    first = trained(lesson, TINY, tmp_path / "killed", kill_at=4)
    second = trained(lesson, TINY, tmp_path / "killed")
    assert len(whole) == 6
    assert first == whole[:4]
    # Step 4 was made but not saved when the kill came, so it is made again.
    assert second == whole[3:]
    one, two = (checkpoint.trained(tmp_path / name) for name in ("whole", "killed"))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name]), name


def test_a_finished_run_makes_no_further_step(lesson: Lesson, tmp_path: Path) -> None:
    assert len(trained(lesson, TINY, tmp_path)) == 6
    assert trained(lesson, TINY, tmp_path) == []


def test_another_recipe_does_not_continue_a_run(lesson: Lesson, tmp_path: Path) -> None:
    trained(lesson, TINY, tmp_path, kill_at=2)
    with pytest.raises(SettingsError, match=r"'seed': \(0, 7\)"):
        train(lesson, Recipe(minutes=0, steps=6, batch=32, widths=TINY.widths, average=0.5, seed=7),
              tmp_path)  # fmt: skip


def test_a_damaged_checkpoint_is_named(lesson: Lesson, tmp_path: Path) -> None:
    (tmp_path / checkpoint.FILE).write_bytes(b"PK no zip")
    with pytest.raises(ModelError, match="readable checkpoint"):
        train(lesson, TINY, tmp_path)


def test_a_run_without_an_end_is_refused(lesson: Lesson, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--minutes or --steps"):
        train(lesson, Recipe(minutes=0, steps=0), tmp_path)


def test_training_learns_to_tell_drawn_smiles(
    lesson: Lesson, drawn: tuple[Faces, Faces], tmp_path: Path
) -> None:
    valid = drawn[1]
    recipe = Recipe(minutes=0, steps=40, batch=32, widths=(8, 8, 16, 16), average=0.8)
    losses = trained(lesson, recipe, tmp_path)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    network = checkpoint.trained(tmp_path)
    logits, au = predict(network, augment.as_served(valid, side=64))
    happy = valid.shares[:, EXPRESSIONS.index("happiness")] > 0.5
    assert ((logits.argmax(axis=1) == EXPRESSIONS.index("happiness")) == happy).mean() > 0.9
    column = list(lesson.scale).index(12)
    assert au[happy, column].mean() > au[~happy, column].mean() + 0.1


def test_batches_depend_on_seed_and_step_alone(lesson: Lesson) -> None:
    from_start = batches(lesson, TINY, 0)
    later = [next(from_start) for _ in range(6)][5]
    rows, pixels = next(batches(lesson, TINY, 5))
    assert np.array_equal(rows, later[0])
    assert np.array_equal(pixels, later[1])


def test_batches_made_ahead_are_the_same(lesson: Lesson) -> None:
    one, many = batches(lesson, TINY, 0), batches(lesson, TINY, 0, loaders=3)
    for _ in range(4):
        (rows, pixels), (others, theirs) = next(one), next(many)
        assert np.array_equal(rows, others)
        assert np.array_equal(pixels, theirs)


def test_silent_units_are_not_learned(lesson: Lesson) -> None:
    assert 6 not in lesson.scale
    assert 12 in lesson.scale
    assert np.isnan(lesson.learn_au).any()


def test_a_face_and_its_mirror_are_rated_alike() -> None:
    torch.manual_seed(0)
    served = Served(RaterNetwork(Shape(units=3)).eval(), temperature=1.3)
    gray = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        for one, two in zip(served(gray), served(gray.flip(-1)), strict=True):
            assert torch.allclose(one, two, atol=1e-5)
        face = gray.unsqueeze(1).float()
        alone = served.network(face)[0]
        assert not torch.allclose(alone, served.network(face.flip(-1))[0])


def test_exposure_and_contrast_hardly_matter() -> None:
    face = torch.rand(1, 1, 64, 64) * 200
    assert torch.allclose(standardise(face), standardise(face * 0.8 + 20), atol=0.05)
    assert standardise(torch.full((1, 1, 64, 64), 90.0)).abs().max() == 0


def test_export_serves_what_was_trained(
    lesson: Lesson, drawn: tuple[Faces, Faces], tmp_path: Path
) -> None:
    run = train(lesson, TINY, tmp_path / "run")
    results = finish(run, lesson, drawn[1], TINY)
    assert results["images"]["learned"] + results["images"]["held_out"] == 120
    weights = tmp_path / "weights" / "drawn.onnx"
    card = export(tmp_path / "run", weights, model="drawn")
    # The exporter notes a stack trace beside each node: paths of the machine it ran on.
    assert b"site-packages" not in weights.read_bytes()
    assert b"forward" not in weights.read_bytes()
    rater = MachineRater(weights)
    assert rater.rater_id == f"machine-drawn-{card['sha256'][:8]}"
    gray = augment.as_served(drawn[1], side=64)
    ratings = rater.rate(np.repeat(gray[:, :, :, None], 3, axis=3))
    logits, au = predict(checkpoint.trained(tmp_path / "run"), gray)
    shares = np.exp(logits / results["temperature"])
    shares /= shares.sum(axis=1, keepdims=True)
    assert np.allclose(ratings.answers, shares, atol=1e-4)
    assert np.allclose(ratings.au[:, [AU_INDEX[unit] for unit in lesson.scale]], au, atol=1e-4)
    assert np.isnan(ratings.au[:, AU_INDEX[6]]).all()
    assert not {"valence", "arousal"} & set(json.loads(weights.with_suffix(".json").read_text()))


def test_export_of_a_run_that_did_not_end(lesson: Lesson, tmp_path: Path) -> None:
    trained(lesson, TINY, tmp_path / "run", kill_at=2)
    with pytest.raises(ModelError, match="then export"):
        export(tmp_path / "run", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_the_command_from_parquet_to_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from annotation.raters.training import train as script

    for split, seed in (("train", 0), ("valid", 1)):
        ferplus_drawn.write_ferplus(tmp_path, split, 60, seed=seed)
    script.main(
        ["--data", str(tmp_path), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c"),
         "--find", f"{ferplus_drawn.__name__}:find_drawn", "--workers", "0", "--minutes", "0",
         "--steps", "2", "--batch", "16", "--widths", "8", "8", "16", "16"]
    )  # fmt: skip
    assert "precision" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["steps"] == 2
    assert {"date", "commit", "hardware"} <= set(results)
