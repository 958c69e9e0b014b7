from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from warehouse import plugins
from warehouse.errors import ModelError, RisoriusError, SettingsError
from warehouse.training import checkpoint, loop
from warehouse.training.checkpoint import Run
from warehouse.training.model_card import check_same_weights, table, unit_names


@dataclass(frozen=True)
class Recipe(loop.Recipe):
    minutes: float = 0.0
    steps: int = 4
    batch: int = 2
    rate: float = 0.1
    decay: float = 0.0
    average: float = 0.3
    seed: int = 0

    warm_up: ClassVar[float] = 0.5
    first_rate: ClassVar[float] = 0.2
    clip_norm: ClassVar[float] = 1.0


def new_run(folder: Path, recipe: Recipe, **options: str) -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = checkpoint.adamw(model, decay=recipe.decay)
    return Run(folder, model, optimizer, recipe, about={"units": [4, 12]}, **options)


def fit(run: Run, **options: float) -> None:
    def batches() -> Iterator[Tensor]:
        for step in count(run.step):
            yield torch.randn(4, 2, generator=torch.Generator().manual_seed(step))

    def loss_of(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        loss = (run.model(batch) - 1).square().mean()
        return loss, {"loss": float(loss.detach())}

    loop.fit(run, batches(), loss_of, evaluate_every=2, **options)  # type: ignore[arg-type]


def test_rate_at__by_hand() -> None:
    rates = [Recipe().rate_at(progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert rates == pytest.approx([0.02, 0.06, 0.1, 0.05, 0])


@pytest.mark.parametrize(
    ("recipe", "step", "seconds", "progress"),
    [
        (Recipe(steps=10), 5, 1e6, 0.5),
        (Recipe(steps=0, minutes=2), 1000, 60, 0.5),
        (Recipe(steps=10, minutes=2), 1, 600, 1),
    ],
)
def test_progress__first_limit_counts(
    recipe: Recipe, step: int, seconds: float, progress: float
) -> None:
    assert recipe.progress(step, seconds) == progress


def test_average__weights_and_buffers_with_a_short_start(tmp_path: Path) -> None:
    run = new_run(tmp_path, Recipe(steps=1))
    names = ("0.weight", "1.running_mean")
    before = {name: run.model.state_dict()[name].clone() for name in names}
    fit(run)
    # min(0.3, (1 + 1) / (10 + 1)) of the old value is left after the first step.
    for name in names:
        now, averaged = (part.state_dict()[name] for part in (run.model, run.averaged.module))
        assert torch.allclose(averaged, before[name] * 2 / 11 + now * 9 / 11)


def test_fit__history_has_means_of_steps(tmp_path: Path) -> None:
    run = new_run(tmp_path, Recipe())
    seen: list[tuple[str, float]] = []
    fit(run, progress=lambda event, figures: seen.append((event, figures["step"])))  # type: ignore[arg-type]
    events = " ".join(event for event, _ in seen)
    assert events == "start step step figures step step figures"
    assert [record["step"] for record in run.history] == [2, 4]


def test_run__continued_with_more_steps_and_its_precision(tmp_path: Path) -> None:
    fit(new_run(tmp_path, Recipe(), precision="bf16"))
    again = new_run(tmp_path, Recipe(steps=6))
    assert (again.step, again.precision) == (4, "bf16")
    fit(again)
    assert checkpoint.load(tmp_path)["step"] == 6


def test_run__other_recipe_or_units_are_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path, Recipe())
    run.save()
    with pytest.raises(SettingsError, match=r"'batch': \(2, 3\)"):
        new_run(tmp_path, Recipe(batch=3))
    run.about = {"units": [4]}
    run.save()
    with pytest.raises(SettingsError, match=r"'units': \(\[4\], \[4, 12\]\)"):
        new_run(tmp_path, Recipe())


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch__keeps_the_order(workers: int) -> None:
    batches = loop.prefetch(lambda step: 10 * step, 2, workers=workers)
    assert [next(batches) for _ in range(4)] == [20, 30, 40, 50]


@pytest.mark.parametrize(
    ("available", "driver", "works", "wanted", "expected"),
    [
        (True, True, True, "auto", "cuda"),
        (True, True, True, "cpu", "cpu"),
        (False, False, False, "auto", "cpu"),
        (False, False, False, "cuda", "finds no GPU|without CUDA"),
        (False, True, False, "auto", "finds no GPU|without CUDA"),
        (True, True, False, "auto", "no kernel image"),
        (True, True, False, "cpu", "cpu"),
    ],
)
def test_device__present_missing_or_unusable(
    available: bool,
    driver: bool,
    works: bool,
    wanted: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ones(*shape: int, device: str) -> Tensor:
        if not works:
            raise RuntimeError("CUDA error: no kernel image is available\nfor this device")
        return torch.zeros(shape)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(checkpoint, "_gpu_is_present", lambda: available or driver)
    monkeypatch.setattr(torch, "ones", ones)
    if expected in ("cpu", "cuda"):
        assert checkpoint.device(wanted) == expected
        return
    with pytest.raises(SettingsError, match=f"GPU cannot be used.*({expected}).*--device cpu"):
        checkpoint.device(wanted)


def test_check_precision__emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.check_precision("fp32", "cpu") == "fp32"

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("\"conv\" not implemented for 'BFloat16'")

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    with pytest.raises(SettingsError, match=r"does not compute in bf16.*--precision fp32"):
        checkpoint.check_precision("bf16", "cpu")


def test_table__columns_side_by_side() -> None:
    columns = {"a": {"size": "1", "seed": "0"}, "b": {"size": "2", "seed": "3"}}
    assert table(columns) == [
        "| | a | b |",
        "|---|---|---|",
        "| size | 1 | 2 |",
        "| seed | 0 | 3 |",
    ]


def test_unit_names__by_hand() -> None:
    assert unit_names([6, 12]) == "AU6 cheek raiser, AU12 lip corner puller"
    assert unit_names([]) == "none"


@pytest.mark.parametrize(
    ("measured", "review", "problem"),
    [("r-2", "Looked at: r-1", "not measure r-1"), ("r-1", "Looked at: r-2", "not about r-1")],
)
def test_check_same_weights__other_weights(measured: str, review: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        check_same_weights("r-1", measured=measured, review=review, hints=("run it", "write it"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("json", "not package.module:function"),
        ("", "not package.module:function"),
        ("missing_module:load", "cannot be imported"),
        ("json:missing", "cannot be imported"),
        ("json:__name__", "not callable"),
    ],
)
def test_resolve__unknown_function(name: str, problem: str) -> None:
    with pytest.raises(RisoriusError, match=f"{problem}.*Correct --faces"):
        plugins.resolve(name, hint="correct --faces")
