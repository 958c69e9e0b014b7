"""Training loop; the caller gives the batches and the loss."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from warehouse.errors import SettingsError
from warehouse.training.checkpoint import Run

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar

Batch = TypeVar("Batch")
Figures = dict[str, Any]
"""Names to numbers, or to tensors of one number."""
Progress = Callable[[str, Figures], None]
"""Called with ``start``, after every step with ``step``, after an evaluation with ``figures``."""


@dataclass(frozen=True)
class Recipe:
    """Options that decide the weights; stored with them.

    Attributes:
        minutes, steps: limits of the run, which ends at the first of the two; 0 is no limit.
        rate: peak learning rate.
        decay: weight decay.
        average: decay of the averaged weights; 0 keeps the last weights.
    """

    minutes: float
    steps: int
    batch: int
    rate: float
    decay: float
    average: float
    seed: int

    warm_up: ClassVar[float]
    """Share of the schedule in which the learning rate rises."""
    first_rate: ClassVar[float]
    """Learning rate of the first step, as a share of the peak."""
    clip_norm: ClassVar[float]
    """Largest norm of the gradient."""

    def progress(self, step: int, seconds: float) -> float:
        """Return 0 at the start of the schedule, 1 at its end."""
        by_clock = seconds / 60 / self.minutes if self.minutes else 0.0
        by_count = step / self.steps if self.steps else 0.0
        return min(1.0, max(by_clock, by_count))

    def rate_at(self, progress: float) -> float:
        """Return the learning rate: linear up, then half a cosine down to 0."""
        if progress < self.warm_up:
            rising = progress / self.warm_up
            return self.rate * (self.first_rate + (1 - self.first_rate) * rising)
        falling = (progress - self.warm_up) / (1 - self.warm_up)
        return self.rate * 0.5 * (1 + math.cos(math.pi * falling))


def fit(
    run: Run,
    batches: Iterator[Batch],
    loss_of: Callable[[Batch], tuple[Tensor, Figures]],
    *,
    evaluate: Callable[[], dict[str, float]] = dict,
    evaluate_every: int,
    save_every_s: float = 60.0,
    progress: Progress = lambda event, figures: None,
) -> None:
    """Train ``run`` until its recipe's limit and save it.

    On one machine, precision and number of threads, a recipe limited by steps gives the same
    weights whether the run was killed or not, if ``batches`` depends on the step alone.

    Args:
        batches: begins at ``run.step`` and never ends.
        loss_of: returns the loss of a batch and its figures, as numbers or as tensors, which are
            read only when figures are reported: reading one waits for the GPU. Called with
            ``run.model`` in training mode, before ``run.step`` is counted up.
        evaluate: returns figures of the averaged weights. It is called every ``evaluate_every``
            steps; with the means of the steps' figures they become a record of ``run.history``.
        save_every_s: seconds between two checkpoints.

    Raises:
        SettingsError: the recipe has no limit.
    """
    recipe = run.recipe
    if not (recipe.minutes or recipe.steps):
        raise SettingsError("Training has no end", got="", hint="give --minutes or --steps")
    progress("start", {"step": run.step, "minutes": run.seconds / 60})
    started, before, saved = time.monotonic(), run.seconds, time.monotonic()
    recent: list[Figures] = []
    while (done := recipe.progress(run.step, run.seconds)) < 1:
        recent.append(train_step(run, next(batches), loss_of, rate=recipe.rate_at(done)))
        run.seconds = before + time.monotonic() - started
        progress("step", {"step": run.step, "progress": done, **recent[-1]})
        if run.step % evaluate_every == 0:
            figures = {**_means(recent), **evaluate()}
            run.history.append({"step": run.step, "seconds": run.seconds, **figures})
            progress("figures", run.history[-1])
            recent = []
        if time.monotonic() - saved >= save_every_s:
            run.save()
            saved = time.monotonic()
    run.save()


def generator(device: str, *seed: int) -> torch.Generator:
    """Return a generator on ``device`` that depends on the numbers alone."""
    low, high = np.random.SeedSequence(seed).generate_state(2).tolist()
    return torch.Generator(device).manual_seed(low + (high << 31))


def prefetch(
    make: Callable[[int], Batch], first: int, *, workers: int = 1, device: str = "cpu"
) -> Iterator[Batch]:
    """Yield ``make(first)``, ``make(first + 1)`` and so on.

    On a CPU, threads work ahead. A GPU queues the work itself.
    """
    if device != "cpu":
        yield from map(make, count(first))
    with ThreadPoolExecutor(workers) as pool:
        steps = count(first)
        ahead = deque(pool.submit(make, next(steps)) for _ in range(workers))
        while True:
            ahead.append(pool.submit(make, next(steps)))
            yield ahead.popleft().result()


def summary(figures: dict[str, float]) -> str:
    """Write figures as one line for a log."""
    return "  ".join(f"{name} {value:.5g}" for name, value in figures.items())


def report_to(bar: ProgressBar) -> Progress:
    """Return a callback that advances ``bar`` and prints other events."""
    task = bar.add_task("training", total=1.0)

    def progress(event: str, figures: dict[str, float]) -> None:
        if event == "step":
            bar.update(task, completed=figures["progress"])
        else:
            print(event, summary(figures), flush=True)

    return progress


def train_step(
    run: Run,
    batch: Batch,
    loss_of: Callable[[Batch], tuple[Tensor, Figures]],
    *,
    rate: float,
) -> Figures:
    """Make one step with learning rate ``rate``; return its figures."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.model.train()
    # Dropout must not depend on how often the run was interrupted.
    torch.manual_seed(run.recipe.seed * 1_000_003 + run.step)
    loss, figures = loss_of(batch)
    run.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_norm)
    run.optimizer.step()
    run.step += 1
    run.average()
    return figures


def _means(records: list[Figures]) -> dict[str, float]:
    names = sorted({name for record in records for name in record})
    return {
        name: float(torch.stack([torch.as_tensor(r[name]) for r in records if name in r]).mean())
        for name in names
    }
