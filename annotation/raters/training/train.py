"""Train the machine rater: ``python -m annotation.raters.training.train --data DIR --out DIR``.

What happens, in this order: read and align FER+, drop from training what also stands in the
validation file, set 6 % aside, train with a one-cycle schedule on soft labels and AU proxies,
keep a moving average of the weights, calibrate its temperature on what was set aside, look at
the validation file once. ``annotation.raters.training.export`` turns the result into ONNX.

A killed run continues from its last checkpoint when started again with the same ``--out``. On
one and the same machine, precision and number of threads, ``--steps`` gives the same weights
every time; ``--minutes`` bends the schedule to the clock and does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch.nn import functional

from annotation.raters.training import ferplus, metrics
from annotation.raters.training.checkpoint import Run, precision_for
from annotation.raters.training.config import RECIPES, Recipe
from annotation.raters.training.dataset import Lesson, batches, lesson_of
from annotation.raters.training.evaluate import finish, held_out_figures
from warehouse.errors import SettingsError

AU_WEIGHT = 0.5
"""Of the AU loss beside the answers' cross-entropy, which is about three times as large."""


def train(
    lesson: Lesson,
    recipe: Recipe,
    out: Path,
    *,
    save_every_s: float = 60.0,
    precision: str | None = None,
    loaders: int = 1,
    say: Callable[[str, dict[str, float]], None] = lambda event, figures: None,
) -> Run:
    """Train, or continue, the run in ``out``; ends with its weights averaged and saved.

    Args:
        say: called after every step as ``("step", …)`` and after every pass as ``("epoch", …)``.

    Raises:
        SettingsError: the checkpoint in ``out`` belongs to another recipe, or no limit is set.
    """
    if not (recipe.minutes or recipe.steps):
        raise SettingsError("minutes or steps", got="neither", hint="give --minutes or --steps")
    torch.manual_seed(recipe.seed)
    run = Run.open(out, recipe.shape(units=len(lesson.scale)), asdict(recipe), precision=precision)
    say("start", {"step": run.step, "seconds": run.seconds})
    started, before, saved = time.monotonic(), run.seconds, time.monotonic()
    per_epoch = max(1, len(lesson.learn) // recipe.batch)
    losses: list[float] = []
    for rows, pixels in batches(lesson, recipe, run.step, loaders=loaders):
        progress = recipe.progress(run.step, run.seconds)
        if progress >= 1:
            break
        loss = _step(run, recipe, lesson, rows, pixels, rate=recipe.rate_at(progress))
        run.seconds = before + time.monotonic() - started
        losses.append(loss)
        say("step", {"step": run.step, "loss": loss, "progress": progress})
        if run.step % per_epoch == 0:
            figures = {"loss": float(np.mean(losses)), **held_out_figures(run, lesson)}
            run.history.append({"step": run.step, "seconds": run.seconds, **figures})
            say("epoch", {"epoch": run.step // per_epoch, **figures})
            losses = []
        if time.monotonic() - saved >= save_every_s:
            run.save()
            saved = time.monotonic()
    run.save()
    return run


def _step(
    run: Run,
    recipe: Recipe,
    lesson: Lesson,
    rows: np.ndarray,
    pixels: np.ndarray,
    *,
    rate: float,
) -> float:
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    face = torch.from_numpy(pixels).to(run.device).unsqueeze(1).float()
    shares = torch.from_numpy(lesson.learn.shares[rows]).to(run.device)
    au = torch.from_numpy(lesson.learn_au[rows]).to(run.device)
    known = torch.isfinite(au)
    run.network.train()
    # Dropout must not depend on how often the run was interrupted.
    torch.manual_seed(recipe.seed * 1_000_003 + run.step)
    with torch.autocast(run.device, torch.bfloat16, enabled=run.precision == "bf16"):
        logits, au_logits, _ = run.network(face)
    loss = functional.cross_entropy(logits.float(), shares)
    if known.any():
        wrong = functional.binary_cross_entropy_with_logits(au_logits.float()[known], au[known])
        loss = loss + AU_WEIGHT * wrong
    run.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.optimizer.step()
    run.step += 1
    run.average(min(recipe.average, (1 + run.step) / (10 + run.step)))
    return float(loss.detach())


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    recipe = _recipe(options)
    with Progress() as progress:
        faces = []
        for split in ("valid", "train"):
            task = progress.add_task(f"aligning {split}", total=None)
            faces.append(
                ferplus.prepare(
                    options.data / f"ferplus-{split}.parquet",
                    cache=options.cache,
                    find=options.find,
                    workers=options.workers,
                    say=lambda done, of, task=task: progress.update(  # type: ignore[misc]
                        task, completed=done, total=of
                    ),
                )
            )
            progress.update(task, completed=1, total=1)
            print(f"{split}: {len(faces[-1])} images, face found in {faces[-1].found.mean():.1%}")
        valid, lesson = faces[0], lesson_of(faces[1], faces[0], part=recipe.part)
        print(
            f"learning from {len(lesson.learn)} images, {len(lesson.hold)} set aside, "
            f"{lesson.repeated} dropped as repeated, {lesson.elsewhere} left to other parts; "
            f"AU proxies {sorted(lesson.scale)}"
        )
        precision, reason = precision_for(recipe)
        print(f"precision {precision}: {reason}")
        task = progress.add_task("training", total=1.0)

        def say(event: str, figures: dict[str, float]) -> None:
            if event == "step":
                progress.update(task, completed=figures["progress"])
            else:
                print(f"{event} {metrics.summary(figures)}", flush=True)

        run = train(
            lesson,
            recipe,
            options.out,
            precision=precision,
            loaders=options.loaders,
            say=say,
        )
    results = finish(run, lesson, valid, recipe)
    print(f"temperature {results['temperature']}; valid {metrics.summary(results['valid'])}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.train", description=__doc__
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with ferplus-{train,valid}.parquet")
    add("--out", type=Path, required=True, help="folder of the run; an existing one is continued")
    add("--cache", type=Path, default=Path(".cache/ferplus"), help="where faces' places are kept")
    add("--find", default="pipeline.faces:find", help="package.module:function that finds faces")
    add("--workers", type=int, default=2, help="processes that look for faces")
    add("--threads", type=int, default=2)
    add("--loaders", type=int, default=1, help="threads that make batches ahead")
    add("--recipe", default="cpu", choices=list(RECIPES), help="what the options below begin from")
    add("--minutes", type=float, help="0: until --steps")
    add("--steps", type=int, help="0: until --minutes")
    add("--batch", type=int)
    add("--rate", type=float, help="peak learning rate")
    add("--seed", type=int)
    add("--widths", type=int, nargs="+")
    add("--blocks", type=int, nargs="+")
    add("--side", type=int, help="pixels of a face's side, a multiple of 16")
    add("--architecture", choices=["residual", "plain"])
    add("--part", help="1/2: the first half; !1/5: all but the first fifth; 1/1: everything")
    return parser.parse_args(arguments)


def _recipe(options: argparse.Namespace) -> Recipe:
    """The named recipe with the options that were given."""
    given = {name: getattr(options, name, None) for name in Recipe.__dataclass_fields__}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return replace(RECIPES[options.recipe], **changes)


if __name__ == "__main__":
    main()
