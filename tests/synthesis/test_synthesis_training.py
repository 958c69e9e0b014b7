"""Train a tiny network on drawn faces for a few steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthesis import unet
from synthesis.pipeline import DEFAULT, FaceAUPipeline
from synthesis.training import export as exporting
from synthesis.training.dataset import (
    MOST_OFTEN,
    FaceDataset,
    Recipe,
    TrainingFaces,
    load_faces,
    sampling_weights,
)
from synthesis.training.export import RECORD, export
from synthesis.training.train import DiffusionLoss, finish, main, open_run, train, trained
from warehouse.errors import ModelError, SettingsError, TableError
from warehouse.training.checkpoint import FILE, Run
from warehouse.training.loop import train_step
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, EXPRESSIONS

SIDE = 16
_HERE = Path(__file__).parent
TINY = unet.Tier(side=SIDE, patch=2, widths=(16, 16, 16), tokens=8)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
RECIPE = Recipe(tier="tiny", minutes=0, steps=6, batch=8, average=0.5, guide_weight=0.0)


class KilledError(Exception):
    """Stands for a kill between two steps."""


class Guide(nn.Module):
    """Rate AU12 by the brightness of the lower half."""

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        au = gray.new_full((len(gray), len(ACTION_UNITS)), float("nan"))
        au[:, AU_INDEX[12]] = gray[:, 0, SIDE // 2 :].mean(dim=(1, 2)) / 255
        return gray.new_zeros(len(gray), 10), au


class TorchGuide(Guide):
    """Has weights, which must be moved to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(gray * self.scale)


class InvertedGuide(Guide):
    """Rate AU12 by the darkness of the lower half."""

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        answers, au = super().forward(gray)
        return answers, 1 - au


def drawn(folder: Path | None = None, *, n: int = 96) -> TrainingFaces:
    """Draw faces with a lower half as bright as AU12; every tenth without AUs."""
    rng = np.random.default_rng(0)
    smile = rng.random(n).astype(np.float32)
    gray = rng.integers(100, 130, (n, SIDE, SIDE)).astype(np.uint8)
    gray[:, SIDE // 2 :] = (smile * 255).astype(np.uint8)[:, None, None]
    au = np.full((n, len(ACTION_UNITS)), np.nan, dtype=np.float32)
    au[:, AU_INDEX[12]], au[:, AU_INDEX[4]] = smile, 1 - smile
    au[::10] = np.nan
    expression = np.eye(len(EXPRESSIONS), dtype=np.float32)[np.arange(n) % 2]
    digest = np.array([rng.bytes(32).hex() for _ in range(n)])
    return TrainingFaces(gray=gray, expression=expression, au=au, digest=digest)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add a tier for tests; use one thread, because two mostly wait."""
    monkeypatch.setitem(unet.TIERS, "tiny", TINY)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def dataset() -> FaceDataset:
    return FaceDataset(drawn(), balance=0.5)


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.averaged.module.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_train__killed_run_gives_the_same_weights(dataset: FaceDataset, tmp_path: Path) -> None:
    whole = train(dataset, RECIPE, tmp_path / "whole")

    def kill(event: str, figures: dict[str, float]) -> None:
        if event == "step" and figures["step"] == 4:
            raise KilledError

    with suppress(KilledError):
        train(dataset, RECIPE, tmp_path / "killed", save_every_s=0, progress=kill)
    made: list[float] = []
    again = train(
        dataset,
        RECIPE,
        tmp_path / "killed",
        progress=lambda event, figures: made.append(figures["step"]) if event == "step" else None,
    )
    assert made == [4, 5, 6]
    assert again.step == whole.step == RECIPE.steps
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize("device", DEVICES)
def test_train__few_steps_on_each_device(device: str, tmp_path: Path) -> None:
    """The guide, the batches and the weights are where the training is."""
    dataset = FaceDataset(drawn(), balance=0.5, device=device)
    recipe = replace(RECIPE, steps=2, guide_weight=0.1)
    precision = "bf16" if device == "cuda" else "fp32"
    guide = TorchGuide()
    run = train(dataset, recipe, tmp_path / "run", guide=guide, precision=precision)
    parts = (dataset.batch(recipe, 0).noise, *run.averaged.parameters(), *guide.parameters())
    assert {part.device.type for part in parts} == {run.device} == {device}
    finish(run, dataset, recipe)
    export(tmp_path / "run", tmp_path / "weights")
    # A run that begins with these weights and makes no useful step keeps them.
    other = replace(recipe, steps=1, rate=0.0, decay=0.0, average=0.0)
    again = train(dataset, other, tmp_path / "again", start=tmp_path / "weights")
    for name, value in run.averaged.module.state_dict().items():
        assert torch.equal(value.half().float(), again.averaged.module.state_dict()[name]), name


def test_train__start_of_another_tier(dataset: FaceDataset, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"default/unet are not those.*of another shape"):
        train(dataset, replace(RECIPE, tier="tiny"), tmp_path, start=DEFAULT)


def test_train__finished_run_makes_no_step(dataset: FaceDataset, tmp_path: Path) -> None:
    done = weights(train(dataset, RECIPE, tmp_path))
    assert same(done, weights(train(dataset, RECIPE, tmp_path)))
    longer = train(dataset, replace(RECIPE, steps=8), tmp_path)
    assert longer.step == 8
    assert not same(done, weights(longer))


def test_train__loss_falls(dataset: FaceDataset, tmp_path: Path) -> None:
    run = open_run(tmp_path, RECIPE, supported_units=dataset.train.supported_units)
    loss = DiffusionLoss(run, RECIPE)
    losses = [
        train_step(run, dataset.batch(RECIPE, step), loss, rate=3e-3)["loss"] for step in range(40)
    ]
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])


@pytest.mark.slow
def test_loss__guidance_rater_changes_the_faces(dataset: FaceDataset, tmp_path: Path) -> None:
    """A heavy guidance rater that inverts the data wins over the pixels."""
    misses = {}
    for heavy in (0.0, 30.0):
        recipe = replace(RECIPE, guide_weight=heavy, guide_share=1.0, guide_above=0.2)
        run = open_run(tmp_path / str(heavy), recipe, supported_units=dataset.train.supported_units)
        loss = DiffusionLoss(run, recipe, InvertedGuide())
        for step in range(20):
            train_step(run, dataset.batch(recipe, step), loss, rate=3e-3)
        measured = DiffusionLoss(run, replace(recipe, guide_weight=1.0), InvertedGuide())
        batches = [dataset.batch(recipe, 100 + k) for k in range(4)]
        figures = [train_step(run, batch, measured, rate=0.0) for batch in batches]
        misses[heavy] = np.mean([figure["au_miss"] for figure in figures])
    assert misses[30.0] < 0.7 * misses[0.0]


def test_guided_rows__clear_faces_only(dataset: FaceDataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, guide_weight=1.0, guide_share=0.25)
    run = open_run(tmp_path, recipe, supported_units=dataset.train.supported_units)
    loss = DiffusionLoss(run, recipe, Guide())
    kept = torch.tensor([0.9, 0.2, 0.6, 0.5, 0.99, 0.1, 0.3, 0.8])
    rows, clear = loss.guided_rows(kept)
    assert rows.tolist() == [0, 2]
    assert clear.all()
    # Too few are clear: the number of rows stays, the others do not count.
    rows, clear = loss.guided_rows(torch.tensor([0.1] * 5 + [0.9] + [0.2] * 2))
    assert (len(rows), rows[clear].tolist()) == (2, [5])


def test_batch__depends_on_seed_and_step_alone(dataset: FaceDataset) -> None:
    one, two = dataset.batch(RECIPE, 3), dataset.batch(RECIPE, 3)
    other = dataset.batch(RECIPE, 4)
    assert torch.equal(one.face, two.face)
    assert torch.equal(one.noise, two.noise)
    assert not torch.equal(one.noise, other.noise)
    assert one.face.shape == (RECIPE.batch, 1, SIDE, SIDE)
    assert one.face.min() >= -1
    assert one.face.max() <= 1


def test_batch__timesteps_cover_the_schedule(dataset: FaceDataset) -> None:
    eighths = dataset.batch(RECIPE, 0).timestep // 125
    assert sorted(eighths.tolist()) == list(range(8))


def test_batch__conditions_are_dropped_at_the_given_rates(dataset: FaceDataset) -> None:
    recipe = replace(RECIPE, batch=8000)
    condition = dataset.batch(recipe, 0).condition
    both = (condition.null_expression & condition.null_au).float().mean()
    # 0.10 for both; one face in ten knows no unit and counts as unconditioned on them.
    no_expression, no_au = 1 - 0.9 * 0.75, 1 - 0.9 * 0.85 * 0.9
    assert condition.null_expression.float().mean() == pytest.approx(no_expression, abs=0.02)
    assert condition.null_au.float().mean() == pytest.approx(no_au, abs=0.03)
    assert both == pytest.approx(0.1 + 0.9 * 0.25 * (1 - 0.85 * 0.9), abs=0.02)
    rows = condition.au[~condition.null_au][:, [AU_INDEX[4], AU_INDEX[12]]]
    assert torch.isnan(rows).float().mean() == pytest.approx((0.15 + 0.5) / 2, abs=0.03)
    assert torch.isnan(condition.au[condition.null_au]).all()
    assert (condition.expression[condition.null_expression] == 0).all()


def test_batch__mirrored_face_keeps_its_units() -> None:
    faces = drawn()
    faces.gray[:, :, : SIDE // 2] = 0
    draw = FaceDataset(faces, balance=0.0).batch(replace(RECIPE, batch=200, unit_unknown=0.0), 0)
    dark_left = draw.face[:, 0, 0, 0] < -0.99
    assert 60 < int(dark_left.sum()) < 140
    asked = draw.condition.au[:, AU_INDEX[12]]
    lower = draw.face[:, 0, -1].amax(dim=1)
    known = torch.isfinite(asked)
    assert torch.allclose((lower[known] + 1) / 2, asked[known], atol=0.01)


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 3.0), (1.0, MOST_OFTEN)])
def test_sampling_weights__rare_expressions_up_to_a_limit(balance: float, ratio: float) -> None:
    expression = np.eye(8, dtype=np.float32)[[0] * 9 + [5]]
    chance = sampling_weights(expression, balance=balance)
    assert chance.sum() == pytest.approx(1)
    assert chance[-1] / chance[0] == pytest.approx(ratio)


def test_rate_at__rises_and_falls_to_zero() -> None:
    recipe = Recipe(rate=1.0)
    assert recipe.rate_at(0) == pytest.approx(0.02)
    assert recipe.rate_at(Recipe.warm_up) == pytest.approx(1.0)
    assert recipe.rate_at(1.0) == pytest.approx(0.0)
    assert recipe.progress(0, 55 * 60) == pytest.approx(0.5)


def test_train__other_recipe_is_refused(dataset: FaceDataset, tmp_path: Path) -> None:
    train(dataset, replace(RECIPE, steps=1), tmp_path)
    with pytest.raises(SettingsError, match=r"batch.*8.*4"):
        train(dataset, replace(RECIPE, batch=4), tmp_path)


def test_train__no_limit(dataset: FaceDataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--minutes or --steps"):
        train(dataset, replace(RECIPE, steps=0), tmp_path)


def test_train__damaged_checkpoint(dataset: FaceDataset, tmp_path: Path) -> None:
    train(dataset, replace(RECIPE, steps=1), tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"checkpoint .* cannot be read"):
        train(dataset, RECIPE, tmp_path)


@pytest.mark.slow
def test_export__same_weights_as_the_run(dataset: FaceDataset, tmp_path: Path) -> None:
    run = train(dataset, RECIPE, tmp_path / "run")
    with pytest.raises(ModelError, match="has not ended"):
        export(tmp_path / "run", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
    finish(run, dataset, RECIPE, guide="none")
    sizes = {}
    for half in (False, True, True):
        record = export(tmp_path / "run", tmp_path / "weights", half=half)
        pipeline = FaceAUPipeline.from_pretrained(tmp_path / "weights")
        mine, _ = trained(tmp_path / "run")
        for name, value in mine.unet.state_dict().items():
            stored = value.half().float() if half else value
            assert torch.equal(stored, pipeline.unet.state_dict()[name])
        sizes[half] = record["bytes"]
    assert sizes[True] < 0.7 * sizes[False]
    assert tuple(pipeline.conditioner.config.supported) == (4, 12)
    assert json.loads((tmp_path / "weights" / RECORD).read_text()) == record
    assert record["steps"] == RECIPE.steps
    assert record["bytes"] > 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    texts = [path.read_text() for path in (tmp_path / "weights").rglob("*.json")]
    assert not any(str(tmp_path) in text for text in texts)


def test_export__size_is_limited_in_the_package_only(
    dataset: FaceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(train(dataset, replace(RECIPE, steps=1), tmp_path / "run"), dataset, RECIPE)
    monkeypatch.setattr(exporting, "LARGEST_BYTES", 1000)
    export(tmp_path / "run", tmp_path / "mine")
    monkeypatch.setattr(exporting, "DEFAULT", tmp_path / "mine")
    with pytest.raises(ModelError, match=r"larger than 1000 bytes.*another folder"):
        export(tmp_path / "run", tmp_path / "mine")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expression", np.ones((96, 8), dtype=np.float32)),
        ("expression", np.ones((96, 7), dtype=np.float32)),
        ("au", np.zeros((96, 5), dtype=np.float32)),
        ("digest", np.array(["0" * 64])),
    ],
)
def test_training_faces__malformed(field: str, value: np.ndarray) -> None:
    with pytest.raises(TableError, match="--faces"):
        replace(drawn(), **{field: value})


@pytest.mark.parametrize(
    "name", ["missing:faces", "synthesis.action_units:nothing", "", "synthesis"]
)
def test_load_faces__unknown_name(name: str) -> None:
    with pytest.raises((ModelError, SettingsError), match="--faces"):
        load_faces(name, Path())


def test_main__trains_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        f"--data . --out {tmp_path} --faces {__name__}:drawn --guide {__name__}:Guide --tier tiny "
        "--steps 2 --minutes 0 --batch 8 --threads 1 --precision measure".split()
    )
    said = capsys.readouterr().out
    assert "training on" in said
    assert "[4, 12]" in said
    assert "device" in said
    assert "processor time per face" in said
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 2
    assert results["faces_seen"] == 16
    assert results["guide"].endswith(":Guide")
    assert results["held_loss"] > 0


@pytest.mark.slow
def test_train__continues_after_sigkill(tmp_path: Path) -> None:
    """Kill a training process with SIGKILL and start it again."""
    begin = (
        f"from {__name__} import *; unet.TIERS['tiny'] = TINY; torch.set_num_threads(1)\n"
        f"dataset = FaceDataset(drawn(), balance=.5); out = Path({str(tmp_path)!r})\n"
        "run = train(dataset, replace(RECIPE, steps=40), out, save_every_s=0,"
        " progress=lambda event, f: print(event, int(f['step']), flush=True))"
    )
    command = [sys.executable, "-c", begin]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [_HERE, _HERE.parents[1]]))}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("step") and (tmp_path / FILE).exists():
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    steps = [int(line.split()[1]) for line in second.stdout.splitlines() if "step " in line]
    assert steps[0] > 1
    assert steps[-1] == 40
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]
