"""Train an AU adapter for Stable Diffusion.

See ``python -m synthesis.training.train_adapter --help``.

Needs a Stable Diffusion 1 or 2 in diffusers layout whose licence permits the use, and
``transformers``. On a GPU (tested only with small networks of random weights; the options below
are a proposal):

    python -m synthesis.training.train_adapter --checkpoint stable-diffusion-v1-5 --data ferplus \\
        --out runs/adapter --side 256 --batch 16 --steps 20000 --precision bf16

``--faces`` names the function that returns the faces; for pictures sharper than FER+'s write one
that returns ``synthesis.training.dataset.TrainingFaces``. VAE, text encoder and UNet are frozen.
The conditioner and one pair of key and value maps per cross-attention layer are trained, in
Stable Diffusion 1 about 19 million weights beside its 860. A killed run continues when it is
started again with the same ``--out``. Use the result:

    from synthesis.pipeline import FaceAUPipeline
    pipeline = FaceAUPipeline.from_stable_diffusion(
        "stable-diffusion-v1-5", "runs/adapter/adapter"
    ).to("cuda")
    pipeline(au={12: 0.8}, expression="happiness", num_inference_steps=25, guidance_scale=5.0)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from synthesis import au_adapter
from synthesis.condition import encode_prompts, prompt_for
from synthesis.noise_schedule import NUM_TRAIN_TIMESTEPS, NoiseLevels
from synthesis.pipeline import FaceAUPipeline
from synthesis.sampler import Embeddings, model_output, random_noise, seeded_generators
from synthesis.training.dataset import Batch, FaceDataset, Recipe, load_faces
from synthesis.training.train import add_face_options
from warehouse.errors import ModelError
from warehouse.training import checkpoint, loop
from warehouse.training.checkpoint import Run

NO_TEXT = 0.05
"""Probability of an empty prompt, so that guidance works for the text too."""


class AdapterLoss:
    """Mean squared error of the prediction, as in SynFER's stage 2.

    Args:
        run: its step seeds the noise and the empty prompts.
    """

    def __init__(self, pipeline: FaceAUPipeline, run: Run) -> None:
        self.pipeline, self.run = pipeline, run
        self.levels = NoiseLevels.of(pipeline.scheduler)

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        unet = self.pipeline.unet
        latents = self._latents(batch.face)
        first = self.run.step * len(latents)
        generators = seeded_generators(range(first, first + len(latents)))
        noise = random_noise(generators, latents.shape[1:], like=latents)
        timestep = batch.timestep * len(self.levels) // NUM_TRAIN_TIMESTEPS
        timestep = timestep.clamp(max=len(self.levels) - 1)
        signal, sigma = (
            factor[timestep].to(latents).view(-1, 1, 1, 1)
            for factor in (self.levels.signal, self.levels.sigma)
        )
        target = {
            "epsilon": noise,
            "sample": latents,
            "v_prediction": signal * noise - sigma * latents,
        }[self.levels.prediction_type]
        noisy = signal * latents + sigma * noise
        with self.run.autocast():
            predicted = model_output(unet, noisy, timestep.to(unet.device), self._context(batch))
        loss = functional.mse_loss(predicted.float(), target.float())
        return loss, {"loss": float(loss.detach())}

    @torch.no_grad()
    def _latents(self, gray: Tensor) -> Tensor:
        """Encode faces float[n, 1, s, s] at the UNet's size."""
        pipeline = self.pipeline
        side = pipeline.latent_codec.image_size(pipeline.unet)
        sized = functional.interpolate(gray, size=(side, side), mode="bilinear", antialias=True)
        rgb = sized.expand(-1, 3, -1, -1).to(pipeline.unet.device, pipeline.vae.dtype)
        return pipeline.latent_codec.encode(rgb).to(pipeline.unet.dtype)

    def _context(self, batch: Batch) -> Embeddings:
        pipeline, condition = self.pipeline, batch.condition
        rng = np.random.default_rng((self.run.recipe.seed, self.run.step, 1))
        empty = rng.random(len(condition)) < NO_TEXT
        rows = zip(condition.expression, condition.null_expression, empty, strict=True)
        prompts = ["" if no_text else prompt_for(e, asked=not no) for e, no, no_text in rows]
        text = encode_prompts(prompts, pipeline.tokenizer, pipeline.text_encoder)
        tokens, pooled = pipeline.conditioner(condition.to(pipeline.unet.device))
        return Embeddings(tokens.to(pipeline.unet.dtype), pooled, text.to(pipeline.unet.dtype))


def open_run(
    pipeline: FaceAUPipeline, recipe: Recipe, out: Path, *, precision: str = "fp32"
) -> Run:
    """Freeze all but the adapter, and open the run that trains it."""
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    branches = (branch for _, branch in au_adapter.branches(pipeline.unet))
    adapter = nn.ModuleList([*branches, pipeline.conditioner]).requires_grad_(True)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    return Run(out, adapter, optimizer, recipe, about={}, precision=precision)


def train(
    pipeline: FaceAUPipeline,
    dataset: FaceDataset,
    recipe: Recipe,
    out: Path,
    *,
    precision: str = "fp32",
    save_every_s: float = 300.0,
    report_every: int = 100,
    progress: loop.Progress = lambda event, figures: None,
) -> Run:
    """Train the adapter in ``pipeline``, or continue; writes ``out/adapter``.

    Raises:
        ModelError: the pipeline has no text encoder or no adapter.
        SettingsError: ``out`` holds a run of another recipe, or the recipe has no steps.
    """
    if pipeline.text_encoder is None or not au_adapter.installed(pipeline.unet):
        raise ModelError(
            "The pipeline is not a Stable Diffusion with an AU adapter",
            got="a pipeline without",
            hint="make it with FaceAUPipeline.from_stable_diffusion",
        )
    run = open_run(pipeline, recipe, out, precision=precision)
    loop.fit(
        run,
        loop.prefetch(lambda step: dataset.batch(recipe, step), run.step),
        AdapterLoss(pipeline, run),
        evaluate_every=report_every,
        save_every_s=save_every_s,
        progress=progress,
    )
    au_adapter.save(pipeline.unet, pipeline.conditioner, out / "adapter")
    return run


def adapter_recipe(*, steps: int, batch: int, rate: float, seed: int = 0) -> Recipe:
    """Make a recipe for the adapter.

    It uses the last weights and fewer faces without condition.
    """
    return Recipe(
        tier="adapter",
        minutes=0,
        steps=steps,
        batch=batch,
        rate=rate,
        average=0,
        seed=seed,
        no_condition=0.05,
        no_expression=0.10,
        no_au=0.10,
        guide_weight=0,
    )


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    faces = load_faces(
        options.faces, options.data, side=options.side, cache=options.cache, workers=options.workers
    )
    recipe = adapter_recipe(
        steps=options.steps, batch=options.batch, rate=options.rate, seed=options.seed
    )
    dataset = FaceDataset(faces, balance=recipe.balance)
    torch.manual_seed(recipe.seed)
    pipeline = FaceAUPipeline.from_stable_diffusion(
        options.checkpoint, supported=faces.supported_units
    )
    pipeline.to(checkpoint.device())
    print(f"{len(dataset.train)} faces; {checkpoint.device()}, {options.precision}")
    with Progress() as bar:
        progress = loop.report_to(bar)
        run = train(
            pipeline, dataset, recipe, options.out, precision=options.precision, progress=progress
        )
    count = sum(weight.numel() for weight in run.model.parameters())
    print(f"adapter of {count:,} trained weights in {options.out / 'adapter'}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m synthesis.training.train_adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_face_options(parser)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="folder of a Stable Diffusion 1 or 2")
    add("--side", type=int, default=256, help="pixels of a face as it is read")
    add("--steps", type=int, default=20_000)
    add("--batch", type=int, default=16)
    add("--rate", type=float, default=1e-4)
    add("--precision", choices=("fp32", "bf16"), default="bf16")
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
