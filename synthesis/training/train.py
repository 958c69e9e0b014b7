"""Train the model: ``python -m synthesis.training.train --data DIR --out DIR``.

What happens, in this order: aligned faces with votes and AU proxies come from the function that
``--faces`` names; 2 % are set aside to watch the loss on; faces are drawn with rare expressions
more often and half of them mirrored; noise is added and the network learns the velocity, told
of expression and action units less often than not; a frozen rater, if one is named by ``--guide``,
looks at what the network takes for the clean face and pulls its action units to those asked for;
a moving average of the weights is kept. ``synthesis.training.export`` turns the result into a
pipeline.

A killed run continues from its last checkpoint when started again with the same ``--out``;
``--minutes`` counts over all sittings. On one and the same machine, precision and number of
threads, ``--steps`` gives the same weights every time; ``--minutes`` bends the schedule to the
clock and does not.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from synthesis import noise_schedule, unet
from synthesis.training import training_data
from synthesis.training.checkpoint import Run, precision_for
from synthesis.training.config import RECIPES, Recipe
from synthesis.training.dataset import Draw, Lesson
from warehouse.errors import SettingsError
from warehouse.storage import atomic

Guide = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``gray float[n, 1, s, s] in 0..255 -> (log answers [n, 10], au [n, K], NaN where unknown)``."""

REPORT_EVERY = 200
"""Steps between two lines of figures."""


class Trainer:
    """One sitting of a run: what is needed for a step beside its weights."""

    def __init__(self, run: Run, recipe: Recipe, guide: Guide | None) -> None:
        self.run, self.recipe = run, recipe
        self.guide = guide if recipe.guide_weight and recipe.guide_share else None
        self.codec = unet.codec(recipe.tier).to(run.device)
        self.kept = noise_schedule.alphas_cumprod().to(run.device)

    def step(self, draw: Draw, *, rate: float) -> dict[str, float]:
        """Learn from one batch; returns its losses."""
        for group in self.run.optimizer.param_groups:
            group["lr"] = rate
        self.run.denoiser.train()
        loss, figures = self._losses(self.run.denoiser, draw, guide=self.guide)
        self.run.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.run.denoiser.parameters(), 1.0)
        self.run.optimizer.step()
        self.run.step += 1
        count = self.run.step
        self.run.average(min(self.recipe.average, (1 + count) / (10 + count)))
        return figures

    @torch.no_grad()
    def watch(self, draws: list[Draw]) -> dict[str, float]:
        """The losses of the averaged weights on the faces set aside."""
        parts = [self._losses(self.run.averaged.eval(), draw, guide=None)[1] for draw in draws]
        return {"held_loss": float(np.mean([part["loss"] for part in parts]))} if parts else {}

    def _losses(
        self, denoiser: Any, draw: Draw, *, guide: Guide | None
    ) -> tuple[Tensor, dict[str, float]]:
        device = self.run.device
        face, noise, moment = (
            part.to(device, non_blocking=True) for part in (draw.face, draw.noise, draw.moment)
        )
        told = draw.condition.to(device)
        kept = self.kept[moment]
        grid, grain = (self.codec.encode(part) for part in (face, noise))
        noisy, wanted = noise_schedule.add_noise(grid, grain, kept)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=self.run.precision == "bf16"):
            velocity = denoiser(noisy, moment, told)
        wrong = (velocity.float() - wanted).square().mean(dim=(1, 2, 3))
        loss = (noise_schedule.loss_weight(kept) * wrong).mean()
        figures = {"loss": float(loss.detach())}
        if guide is not None:
            rows = self._seen(kept)
            if len(rows):
                clean = noise_schedule.predict_x0(noisy[rows], velocity.float()[rows], kept[rows])
                miss = self._miss(guide, clean, told.au[rows])
                figures["au_miss"] = float(miss.detach())
                loss = loss + self.recipe.guide_weight * miss
        return loss, figures

    def _seen(self, kept: Tensor) -> Tensor:
        """Which rows the guide looks at: enough of the face is left, and not too many."""
        clear = torch.nonzero(kept > self.recipe.guide_above).squeeze(1)
        return clear[: round(self.recipe.guide_share * len(kept))]

    def _miss(self, guide: Guide, clean: Tensor, au: Tensor) -> Tensor:
        """Mean squared distance between the units that were told and those the guide sees."""
        # No clamp: outside -1..1 its gradient is zero and could not lead back.
        _, seen = guide((self.codec.decode(clean) + 1) * 127.5)
        both = torch.isfinite(au) & torch.isfinite(seen)
        if not both.any():
            return clean.sum() * 0
        return (seen[both] - au[both]).square().mean()


def train(
    lesson: Lesson,
    recipe: Recipe,
    out: Path,
    *,
    guide: Guide | None = None,
    save_every_s: float = 60.0,
    precision: str = "fp32",
    say: Callable[[str, dict[str, float]], None] = lambda event, figures: None,
) -> Run:
    """Train, or continue, the run in ``out``; ends with its weights averaged and saved.

    Args:
        say: called with ``start``, after every step with ``step``, and every ``REPORT_EVERY``
            steps with ``figures``.

    Raises:
        SettingsError: the checkpoint in ``out`` belongs to another recipe, or no limit is set.
    """
    if not (recipe.minutes or recipe.steps):
        raise SettingsError("minutes or steps", got="neither", hint="give --minutes or --steps")
    run = Run.open(out, asdict(recipe), taught=lesson.learn.taught, precision=precision)
    if guide is not None and hasattr(guide, "to"):
        guide = guide.to(run.device)
    trainer, watched = Trainer(run, recipe, guide), lesson.watch(recipe)
    say("start", {"step": run.step, "minutes": run.seconds / 60})
    started, before, saved = time.monotonic(), run.seconds, time.monotonic()
    recent: list[dict[str, float]] = []
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(lesson.draw, recipe, run.step)
        while (progress := recipe.progress(run.step, run.seconds)) < 1:
            draw, ahead = ahead.result(), pool.submit(lesson.draw, recipe, run.step + 1)
            recent.append(trainer.step(draw, rate=recipe.rate_at(progress)))
            run.seconds = before + time.monotonic() - started
            say("step", {"step": run.step, "progress": progress})
            if run.step % REPORT_EVERY == 0:
                figures = {**_means(recent), **trainer.watch(watched)}
                run.history.append({"step": run.step, "seconds": run.seconds, **figures})
                say("figures", run.history[-1])
                recent = []
            if time.monotonic() - saved >= save_every_s:
                run.save()
                saved = time.monotonic()
    run.save()
    return run


def finish(run: Run, lesson: Lesson, recipe: Recipe, *, about: dict[str, Any]) -> dict[str, Any]:
    """Write ``results.json`` beside the checkpoint; returns its content."""
    watched = Trainer(run, recipe, None).watch(lesson.watch(recipe))
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": run.device,
        "precision": run.precision,
        "threads": torch.get_num_threads(),
        "recipe": asdict(recipe),
        "steps": run.step,
        "faces_seen": run.step * recipe.batch,
        "minutes": round(run.seconds / 60, 1),
        "learned": len(lesson.learn),
        "held_out": len(lesson.hold),
        "taught": list(run.taught),
        **about,
        **watched,
        "history": run.history,
    }
    atomic.write_text(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    recipe = _recipe(options)
    guide = training_data.resolve(options.guide)() if options.guide else None
    lesson = Lesson(_faces(options, recipe), balance=recipe.balance)
    print(
        f"learning from {len(lesson.learn)} faces, {len(lesson.hold)} set aside; "
        f"action units {list(lesson.learn.taught)}; guide {options.guide or 'none'}",
        flush=True,
    )
    precision, reason = options.precision, "as asked"
    if precision == "measure":
        precision, reason = precision_for(recipe.tier)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (no GPU found)"
    print(f"device {device}, {options.threads} threads; precision {precision}: {reason}")
    with Progress() as bar:
        task = bar.add_task("training", total=1.0)

        def say(event: str, figures: dict[str, float]) -> None:
            if event == "step":
                bar.update(task, completed=figures["progress"])
            else:
                print(event, _line(figures), flush=True)

        run = train(lesson, recipe, options.out, guide=guide, precision=precision, say=say)
    about = {"faces": options.faces, "guide": _named(options.guide, guide), "cpus": os.cpu_count()}
    results = finish(run, lesson, recipe, about=about)
    print(f"done: {results['faces_seen']} faces seen in {results['minutes']} minutes")


def _faces(options: argparse.Namespace, recipe: Recipe) -> training_data.Teaching:
    """What ``--faces`` gives, asked only for what it understands."""
    source = training_data.resolve(options.faces)
    offered = {
        "side": unet.tier(recipe.tier).side,
        "cache": options.cache,
        "workers": options.workers,
        "say": lambda line: print(line, flush=True),
    }
    known = inspect.signature(source).parameters
    return source(options.data, **{name: offered[name] for name in offered if name in known})


def _named(dotted: str, guide: Any) -> str:
    return getattr(guide, "rater_id", dotted) or "none"


def _means(records: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for record in records for name in record})
    return {
        name: float(np.mean([record[name] for record in records if name in record]))
        for name in names
    }


def _line(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.5g}" for name, value in figures.items())


def _recipe(options: argparse.Namespace) -> Recipe:
    given = {
        name: getattr(options, name)
        for name in ("tier", "minutes", "steps", "batch", "rate", "seed", "guide_weight")
        if getattr(options, name) is not None
    }
    if not options.guide:
        given["guide_weight"] = 0.0
    return replace(RECIPES[options.recipe], **given)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m synthesis.training.train", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder handed to --faces")
    add("--out", type=Path, required=True, help="folder of the run; an existing one is continued")
    add("--cache", type=Path, default=Path(".cache/ferplus"), help="where faces' places are kept")
    add("--faces", default="pipeline.synthesis.training_data:faces", help="package.module:function")
    add("--guide", default="", help="package.module:function that gives a frozen rater")
    add("--recipe", choices=sorted(RECIPES), default="cpu", help="gpu has not been measured")
    add("--workers", type=int, default=2, help="processes that look for faces")
    add("--threads", type=int, default=2)
    add("--precision", choices=("measure", "fp32", "bf16"), default="measure")
    add("--minutes", type=float, help="over all sittings; 0: until --steps")
    add("--steps", type=int, help="0: until --minutes")
    for name, kind in (("tier", str), ("batch", int), ("rate", float), ("seed", int)):
        add(f"--{name}", type=kind, help="in place of the recipe's")
    add("--guide-weight", type=float, help="in place of the recipe's")
    return parser.parse_args(arguments)


def _wait_asleep() -> None:
    """Begin this process again with OpenMP's threads asleep while they wait for each other.

    They spin by default: beside other work that made a step of two threads five times as slow as
    a step of one. OpenMP reads its setting when torch is loaded, which has happened by now.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, [sys.executable, "-m", "synthesis.training.train", *sys.argv[1:]])


if __name__ == "__main__":
    _wait_asleep()
    main()
