"""Train the face generator.

Run ``python -m synthesis.training.train --data DIR --out DIR``.

Steps: the function of ``--faces`` returns aligned faces with votes and AU proxies; 2 % of them are
held out. Faces are sampled with rare expressions more often and half of them mirrored. The
network learns to predict the velocity of the noisy face, with and without its condition. If
``--guide`` names a frozen guidance rater, it rates the predicted clean faces, and the distance of
its action units to the condition is added to the loss. ``synthesis.training.export`` turns the
averaged weights into a pipeline.

A killed run continues from its last checkpoint when it is started again with the same ``--out``;
``--minutes`` counts all sessions. On one machine, precision and number of threads, ``--steps``
gives the same weights every time. ``--minutes`` does not, because the schedule follows the clock.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from synthesis import noise_schedule
from synthesis import unet as network
from synthesis.condition import FaceCondition
from synthesis.pipeline import FaceAUPipeline
from synthesis.training.dataset import RECIPES, Batch, FaceDataset, Recipe, load_faces
from warehouse import plugins
from warehouse.build_info import revision
from warehouse.ids import file_sha256
from warehouse.training import checkpoint, loop
from warehouse.training.checkpoint import Run

Guide = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``gray float[n, 1, s, s] in 0..255 -> (log answers [n, 10], au [n, K], NaN where unknown)``."""

REPORT_EVERY = 200
"""Steps between two evaluations."""


class Denoiser(nn.Module):
    """Conditioner and UNet, which are trained together."""

    conditioner: Any
    unet: Any

    def __init__(self, tier: str, *, supported_units: tuple[int, ...]) -> None:
        super().__init__()
        self.conditioner = network.conditioner(tier, supported=supported_units)
        self.unet = network.unet(tier)

    def forward(self, noisy: Tensor, timestep: Tensor, condition: FaceCondition) -> Tensor:
        """Predict the velocity of noisy latents float[n, c, h, w]."""
        tokens, pooled = self.conditioner(condition)
        return self.unet(
            noisy, timestep, encoder_hidden_states=tokens, class_labels=pooled, return_dict=False
        )[0]


class DiffusionLoss:
    """Velocity loss of a batch, with AU consistency if there is a guide.

    Args:
        guide: guidance rater; unused if the recipe gives it no weight or share.
    """

    def __init__(self, run: Run, recipe: Recipe, guide: Guide | None = None) -> None:
        self.run, self.recipe = run, recipe
        self.guide = guide if recipe.guide_weight and recipe.guide_share else None
        self.codec = network.codec(recipe.tier).to(run.device)
        self.alphas_cumprod = noise_schedule.alphas_cumprod().to(run.device)

    def __call__(self, batch: Batch) -> tuple[Tensor, loop.Figures]:
        """Return the loss and its parts for training."""
        return self._losses(self.run.model, batch, guide=self.guide)

    @torch.no_grad()
    def evaluate(self, batches: list[Batch]) -> dict[str, float]:
        """Return the loss of the averaged weights without guidance."""
        averaged = self.run.averaged.module.eval()
        losses = [self._losses(averaged, batch, guide=None)[1]["loss"] for batch in batches]
        return {"held_loss": float(torch.stack(losses).mean())} if losses else {}

    def _losses(
        self, denoiser: nn.Module, batch: Batch, *, guide: Guide | None
    ) -> tuple[Tensor, loop.Figures]:
        timestep, condition = batch.timestep, batch.condition
        alphas = self.alphas_cumprod[timestep]
        latents, latent_noise = (self.codec.encode(part) for part in (batch.face, batch.noise))
        noisy, target = noise_schedule.add_noise(latents, latent_noise, alphas)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with self.run.autocast():
            velocity = denoiser(noisy, timestep, condition)
        error = (velocity.float() - target).square().mean(dim=(1, 2, 3))
        loss = (noise_schedule.loss_weight(alphas) * error).mean()
        figures = {"loss": loss.detach()}
        if guide is not None:
            rows, clear = self.guided_rows(alphas)
            clean = noise_schedule.predict_x0(noisy[rows], velocity.float()[rows], alphas[rows])
            wanted = condition.au[rows].masked_fill(~clear[:, None], float("nan"))
            distance = self._au_distance(guide, clean, wanted)
            figures["au_miss"] = distance.detach()
            loss = loss + self.recipe.guide_weight * distance
        return loss, figures

    def guided_rows(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """Select the first rows with little noise, for the guidance rater.

        Returns:
            A fixed number of row numbers, and which of them have little noise. A number that
            depends on the batch would make the GPU wait.
        """
        n = len(alphas)
        clear = alphas > self.recipe.guide_above
        rank = torch.where(clear, torch.arange(n, 0, -1, device=alphas.device), 0)
        rows = rank.topk(max(1, round(self.recipe.guide_share * n))).indices
        return rows, clear[rows]

    def _au_distance(self, guide: Guide, clean: Tensor, au: Tensor) -> Tensor:
        """Return the mean squared difference between conditioned and rated units."""
        # Not clamped: outside -1..1 a clamp has no gradient that could lead back.
        _, rated = guide((self.codec.decode(clean) + 1) * 127.5)
        both = torch.isfinite(au) & torch.isfinite(rated)
        # NaN is replaced before the difference, because NaN times 0 has the gradient NaN.
        apart = torch.where(both, rated, 0.0) - torch.where(both, au, 0.0)
        return apart.square().sum() / both.sum().clamp(min=1)


def train(
    dataset: FaceDataset,
    recipe: Recipe,
    out: Path,
    *,
    guide: Guide | None = None,
    start: Path | None = None,
    save_every_s: float = 60.0,
    precision: str = "fp32",
    progress: loop.Progress = lambda event, figures: None,
) -> Run:
    """Train a generator in ``out``, or continue the run found there.

    It is trained on the device of ``dataset``.

    Args:
        start: saved pipeline whose weights a new run begins with.

    Raises:
        SettingsError: ``out`` holds a run of another recipe, or the recipe has no limit.
        ModelError: ``start`` is of another tier, or damaged.
    """
    run = open_run(
        out,
        recipe,
        supported_units=dataset.train.supported_units,
        precision=precision,
        device=dataset.device,
        start=start,
    )
    if guide is not None and hasattr(guide, "to"):
        guide = guide.to(run.device)
    loss, validation = DiffusionLoss(run, recipe, guide), dataset.validation_batches(recipe)
    loop.fit(
        run,
        loop.prefetch(lambda step: dataset.batch(recipe, step), run.step, device=run.device),
        loss,
        evaluate=lambda: loss.evaluate(validation),
        evaluate_every=REPORT_EVERY,
        save_every_s=save_every_s,
        progress=progress,
    )
    return run


def open_run(
    out: Path,
    recipe: Recipe,
    *,
    supported_units: tuple[int, ...],
    precision: str = "fp32",
    device: str = "cpu",
    start: Path | None = None,
) -> Run:
    """Open a run with a new denoiser, or continue that in ``out``."""
    torch.manual_seed(recipe.seed)
    denoiser = Denoiser(recipe.tier, supported_units=supported_units)
    about: dict[str, Any] = {"taught": list(supported_units)}
    if start is not None:
        pipeline = FaceAUPipeline.from_pretrained(start)
        for name in ("unet", "conditioner"):
            weights = getattr(pipeline, name).state_dict()
            checkpoint.load_weights(getattr(denoiser, name), weights, source=f"{start.name}/{name}")
        about["start"] = file_sha256(str(start / "unet" / "diffusion_pytorch_model.safetensors"))
    denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
    optimizer = checkpoint.adamw(denoiser, decay=recipe.decay, betas=(0.9, 0.99), fused=True)
    return Run(out, denoiser, optimizer, recipe, about=about, precision=precision)


def trained(folder: Path) -> tuple[Denoiser, dict[str, Any]]:
    """Load the averaged denoiser of a run, and the facts of its checkpoint.

    Raises:
        ModelError: there is no checkpoint, or it is damaged.
    """
    state = checkpoint.load(folder)
    units = tuple(state["about"]["taught"])
    denoiser = Denoiser(state["recipe"]["tier"], supported_units=units)
    denoiser.load_state_dict(state["averaged"])
    names = ("recipe", "precision", "step", "seconds", "history")
    return denoiser.eval(), {**state["about"], **{name: state[name] for name in names}}


def finish(run: Run, dataset: FaceDataset, recipe: Recipe, **about: Any) -> dict[str, Any]:
    """Evaluate, write and return ``results.json``.

    Args:
        about: further facts to write.
    """
    return run.write_results(
        threads=torch.get_num_threads(),
        commit=revision(),
        faces_seen=run.step * recipe.batch,
        learned=len(dataset.train),
        held_out=len(dataset.held_out),
        **run.about,
        **about,
        **DiffusionLoss(run, recipe).evaluate(dataset.validation_batches(recipe)),
    )


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    recipe = _recipe(options)
    device = checkpoint.device(options.device)
    guide: Any = None
    if options.guide:
        guide = plugins.resolve(options.guide, hint="correct --guide")()
    faces = load_faces(
        options.faces,
        options.data,
        side=network.tier(recipe.tier).side,
        cache=options.cache,
        workers=options.workers,
        progress=lambda line: print(line, flush=True),
    )
    dataset = FaceDataset(faces, balance=recipe.balance, device=device)
    print(
        f"training on {len(dataset.train)} faces, {len(dataset.held_out)} held out; "
        f"action units {list(dataset.train.supported_units)}; "
        f"guidance rater {options.guide or 'none'}",
        flush=True,
    )
    precision, reason = options.precision, "as given"
    if precision == "measure":
        precision, reason = _precision(recipe.tier, device=device)
    checkpoint.check_precision(precision, device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"device {name}, {options.threads} threads; precision {precision}: {reason}")
    with Progress() as bar:
        progress = loop.report_to(bar)
        run = train(
            dataset,
            recipe,
            options.out,
            guide=guide,
            start=options.start,
            precision=precision,
            progress=progress,
        )
    results = finish(
        run,
        dataset,
        recipe,
        faces=options.faces,
        guide=getattr(guide, "rater_id", options.guide) or "none",
        cpus=os.cpu_count(),
    )
    print(f"done: {results['faces_seen']} faces in {results['minutes']} minutes")


def _recipe(options: argparse.Namespace) -> Recipe:
    given = {
        name: getattr(options, name)
        for name in ("tier", "minutes", "steps", "batch", "rate", "seed", "guide_weight")
        if getattr(options, name) is not None
    }
    if not options.guide:
        given["guide_weight"] = 0.0
    return replace(RECIPES[options.recipe], **given)


def _precision(tier: str, *, device: str, batch: int = 16) -> tuple[str, str]:
    denoiser = Denoiser(tier, supported_units=()).to(memory_format=torch.channels_last)
    noisy, timestep = torch.randn(batch, *network.codec(tier).grid), torch.zeros(batch).long()
    condition = FaceCondition.unconditional(batch)
    return checkpoint.faster_precision(
        lambda: denoiser(noisy, timestep, condition), batch=batch, device=device
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m synthesis.training.train", description=__doc__)
    add_face_options(parser)
    add = parser.add_argument
    add("--guide", default="", help="guidance rater: package.module:function that returns it")
    add("--recipe", choices=sorted(RECIPES), default="cpu")
    add("--start", type=Path, help="saved pipeline whose weights training begins with")
    add("--device", choices=checkpoint.DEVICES, default="auto")
    add("--threads", type=int, default=2)
    add("--precision", choices=("measure", "fp32", "bf16"), default="measure")
    add("--minutes", type=float, help="over all sessions; 0: until --steps")
    add("--steps", type=int, help="0: until --minutes")
    for name, kind in (("tier", str), ("batch", int), ("rate", float), ("seed", int)):
        add(f"--{name}", type=kind, help="instead of the recipe's")
    add("--guide-weight", type=float, help="instead of the recipe's")
    return parser.parse_args(arguments)


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the source of faces and the folder of the run."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder passed to the function of --faces")
    add("--out", type=Path, required=True, help="folder of the run; a run in it is continued")
    add("--cache", type=Path, default=Path(".cache/ferplus"), help="folder for alignments")
    add("--faces", default="pipeline.synthesis.training_data:faces", help="package.module:function")
    add("--workers", type=int, default=2, help="processes that detect faces")


def _use_passive_waiting() -> None:
    """Restart this process with OpenMP's passive wait policy.

    By default OpenMP threads spin while waiting; beside other work this made a step with two
    threads five times as slow as with one. OpenMP reads the variable when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, [sys.executable, "-m", "synthesis.training.train", *sys.argv[1:]])


if __name__ == "__main__":
    _use_passive_waiting()
    main()
