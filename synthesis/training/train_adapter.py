"""Teach a Stable Diffusion action units: ``python -m synthesis.training.train_adapter --help``.

On a GPU (tested only on small networks of random weights; the figures below are a proposal), with
a Stable Diffusion 1 or 2 in diffusers layout that its licence allows you to use, and with
``transformers`` installed (``uv pip install transformers``):

    python -m synthesis.training.train_adapter --checkpoint stable-diffusion-v1-5 --data ferplus \\
        --out runs/adapter --side 256 --batch 16 --steps 20000 --precision bf16

``--faces`` names the function that gives the faces; for pictures sharper than FER+'s write one of
your own that returns a ``synthesis.training.training_data.Teaching``. VAE, text encoder and UNet
stay as they
are; learned are the conditioner and one pair of key and value maps per cross-attention layer, in
Stable Diffusion 1 some 19 million weights beside its 860. A killed run goes on when started again
with the same ``--out``. Then:

    from synthesis.pipeline import FaceAUPipeline
    pipeline = FaceAUPipeline.from_stable_diffusion(
        "stable-diffusion-v1-5", "runs/adapter/adapter"
    ).to("cuda")
    pipeline(au={12: 0.8}, expression="happiness", num_inference_steps=25, guidance_scale=5.0)
"""

from __future__ import annotations

import argparse
import inspect
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from synthesis import au_adapter
from synthesis.condition import encode_prompts, prompt_for
from synthesis.noise_schedule import NUM_TRAIN_TIMESTEPS, NoiseLevels
from synthesis.pipeline import FaceAUPipeline
from synthesis.sampler import Embeddings, model_output, random_noise, seeded_generators
from synthesis.training import training_data
from synthesis.training.config import Recipe
from synthesis.training.dataset import Draw, Lesson
from warehouse.errors import ModelError, SettingsError
from warehouse.storage import atomic

FILE = "adapter-run.pt"
NO_TEXT = 0.05
"""Chance that the text is left out, so that guidance works for it too."""


class AdapterRun:
    """Training of one adapter: the pipeline it sits in, the optimizer, and how far they are.

    Attributes:
        step: finished steps, over all sittings.
        losses: one per finished step.
    """

    def __init__(self, pipeline: FaceAUPipeline, recipe: Recipe, *, precision: str) -> None:
        self.pipeline, self.recipe, self.precision = pipeline, recipe, precision
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False)
        self.learned = [*au_adapter.parameters(pipeline.unet), *pipeline.conditioner.parameters()]
        for weight in self.learned:
            weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.learned, lr=recipe.rate, weight_decay=recipe.decay)
        self.levels = NoiseLevels.of(pipeline.scheduler)
        self.step, self.losses = 0, list[float]()

    def learn(self, draw: Draw) -> float:
        """One step; returns its loss."""
        loss = self.loss(draw)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate_at(self.step / self.recipe.steps)
        self.optimizer.zero_grad()
        loss.backward()
        # A list, because an iterator would be empty after the optimizer has read it.
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimizer.step()
        self.step += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def loss(self, draw: Draw) -> Tensor:
        """Mean squared error of what the scheduler's network predicts, as in SynFER's stage 2."""
        unet = self.pipeline.unet
        latents = self._latents(draw.face)
        generators = seeded_generators(
            range(self.step * len(latents), (self.step + 1) * len(latents))
        )
        drawn = random_noise(generators, latents.shape[1:], like=latents)
        moments = (draw.moment * len(self.levels) // NUM_TRAIN_TIMESTEPS).clamp(
            max=len(self.levels) - 1
        )
        signal, sigma = (
            factor[moments].to(latents).view(-1, 1, 1, 1)
            for factor in (self.levels.signal, self.levels.sigma)
        )
        wanted = {
            "epsilon": drawn,
            "sample": latents,
            "v_prediction": signal * drawn - sigma * latents,
        }[self.levels.prediction_type]
        noisy = signal * latents + sigma * drawn
        with torch.autocast(unet.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            answer = model_output(unet, noisy, moments.to(unet.device), self._context(draw))
        return functional.mse_loss(answer.float(), wanted.float())

    @torch.no_grad()
    def _latents(self, gray: Tensor) -> Tensor:
        """Faces float[n, 1, s, s] to latents of the size the UNet was made for."""
        pipeline = self.pipeline
        side = pipeline.latent_codec.image_size(pipeline.unet)
        sized = functional.interpolate(gray, size=(side, side), mode="bilinear", antialias=True)
        rgb = sized.expand(-1, 3, -1, -1).to(pipeline.unet.device, pipeline.vae.dtype)
        return pipeline.latent_codec.encode(rgb).to(pipeline.unet.dtype)

    def _context(self, draw: Draw) -> Embeddings:
        pipeline, told = self.pipeline, draw.condition
        rng = np.random.default_rng((self.recipe.seed, self.step, 1))
        silent = rng.random(len(told)) < NO_TEXT
        rows = zip(told.expression, told.null_expression, silent, strict=True)
        prompts = ["" if mute else prompt_for(e, asked=not no) for e, no, mute in rows]
        text = encode_prompts(prompts, pipeline.tokenizer, pipeline.text_encoder)
        tokens, pooled = pipeline.conditioner(told.to(pipeline.unet.device))
        return Embeddings(tokens.to(pipeline.unet.dtype), pooled, text.to(pipeline.unet.dtype))

    def save(self, folder: Path) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "losses": self.losses,
            "attention": au_adapter.state(self.pipeline.unet),
            "conditioner": self.pipeline.conditioner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic.replace_file(folder / FILE) as draft, open(draft, "wb") as handle:
            torch.save(state, handle)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in ``folder``, if there is one.

        Raises:
            SettingsError: it was begun with another recipe.
            ModelError: it is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return
        try:
            kept = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ModelError(
                f"a whole {FILE}", got=type(error).__name__, hint="name another --out"
            ) from None
        if kept["recipe"] != asdict(self.recipe):
            changed = [k for k, v in asdict(self.recipe).items() if kept["recipe"].get(k) != v]
            raise SettingsError(
                f"the options with which {folder.name} was begun",
                got=f"another {', '.join(changed)}",
                hint="repeat them, or name another --out",
            )
        au_adapter.restore(self.pipeline.unet, kept["attention"])
        self.pipeline.conditioner.load_state_dict(kept["conditioner"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.step, self.losses = kept["step"], kept["losses"]


def train(
    pipeline: FaceAUPipeline,
    lesson: Lesson,
    recipe: Recipe,
    out: Path,
    *,
    precision: str = "fp32",
    save_every_s: float = 300.0,
    say: Callable[[int, float], None] = lambda step, loss: None,
) -> AdapterRun:
    """Train, or go on training, the adapter in ``pipeline``; ends with ``out/adapter`` written.

    Raises:
        ModelError: the pipeline has no text encoder or no adapter.
        SettingsError: ``out`` holds a run of another recipe, or no steps are asked.
    """
    if pipeline.text_encoder is None or not au_adapter.installed(pipeline.unet):
        raise ModelError(
            "a Stable Diffusion with an AU adapter",
            got="a pipeline without",
            hint="make it with FaceAUPipeline.from_stable_diffusion",
        )
    if recipe.steps < 1:
        raise SettingsError("one step or more", got=str(recipe.steps), hint="give --steps 20000")
    run = AdapterRun(pipeline, recipe, precision=precision)
    run.resume(out)
    saved = time.monotonic()
    while run.step < recipe.steps:
        loss = run.learn(lesson.draw(recipe, run.step))
        say(run.step, loss)
        if time.monotonic() - saved >= save_every_s:
            run.save(out)
            saved = time.monotonic()
    run.save(out)
    au_adapter.save(pipeline.unet, pipeline.conditioner, out / "adapter")
    return run


def recipe_of(*, steps: int, batch: int, rate: float, seed: int = 0) -> Recipe:
    """The shares of faces that are shown without AUs or expression, of the research brief §8.3."""
    return Recipe(
        tier="adapter",
        minutes=0,
        steps=steps,
        batch=batch,
        rate=rate,
        seed=seed,
        no_condition=0.05,
        no_expression=0.10,
        no_au=0.10,
        guide_weight=0,
    )


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = training_data.resolve(options.faces)
    offered = {"side": options.side, "cache": options.cache, "workers": options.workers}
    known = inspect.signature(source).parameters
    faces = source(options.data, **{name: offered[name] for name in offered if name in known})
    recipe = recipe_of(
        steps=options.steps, batch=options.batch, rate=options.rate, seed=options.seed
    )
    lesson = Lesson(faces, balance=recipe.balance)
    torch.manual_seed(recipe.seed)
    pipeline = FaceAUPipeline.from_stable_diffusion(options.checkpoint, supported=faces.taught)
    pipeline.to(device)
    count = sum(weight.numel() for weight in AdapterRun(pipeline, recipe, precision="fp32").learned)
    print(f"{len(lesson.learn)} faces; {count:,} weights to learn; {device}, {options.precision}")
    with Progress() as bar:
        task = bar.add_task("training", total=recipe.steps)

        def say(step: int, loss: float) -> None:
            bar.update(task, completed=step)
            if step % 100 == 0:
                print(f"step {step} loss {loss:.4f}", flush=True)

        train(pipeline, lesson, recipe, options.out, precision=options.precision, say=say)
    print(f"adapter in {options.out / 'adapter'}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m synthesis.training.train_adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="folder of a Stable Diffusion 1 or 2")
    add("--data", type=Path, required=True, help="folder handed to --faces")
    add("--out", type=Path, required=True, help="folder of the run; an existing one is continued")
    add("--faces", default="pipeline.synthesis.training_data:faces", help="package.module:function")
    add("--cache", type=Path, default=Path(".cache/ferplus"), help="where faces' places are kept")
    add("--workers", type=int, default=2, help="processes that look for faces")
    add("--side", type=int, default=256, help="pixels of a face as it is read")
    add("--steps", type=int, default=20_000)
    add("--batch", type=int, default=16)
    add("--rate", type=float, default=1e-4)
    add("--precision", choices=("fp32", "bf16"), default="bf16")
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
