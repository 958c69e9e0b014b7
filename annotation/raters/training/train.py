"""Train a machine rater.

Run ``python -m annotation.raters.training.train --data DIR --out DIR``.

Steps: align FER+, drop duplicates and pictures of the validation file, hold out 6 %, train on
soft labels and AU proxies with a one-cycle schedule and averaged weights, fit the temperature on
the held-out faces, evaluate once on the validation file. ``annotation.raters.training.export``
turns the result into ONNX.

A killed run continues from its last checkpoint when it is started again with the same ``--out``.
On one machine, precision and number of threads, ``--steps`` gives the same weights every time.
``--minutes`` does not, because the schedule follows the clock.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from annotation.raters.network import RaterNetwork, Served, Shape
from annotation.raters.training import augment, ferplus, metrics, targets
from annotation.raters.training.dataset import RaterDataset, build_dataset
from annotation.raters.training.ferplus import Faces
from warehouse.build_info import hardware, revision
from warehouse.training import checkpoint, loop
from warehouse.training.checkpoint import Run
from warehouse.vocabulary import EXPRESSIONS

AU_WEIGHT = 0.5
"""Weight of the AU loss. The cross-entropy of the answers is about three times as large."""


@dataclass(frozen=True)
class Recipe(loop.Recipe):
    """How a rater is trained.

    Attributes:
        widths, blocks, side, dropout, architecture: see ``network.Shape``.
        part: fold of the pictures, see ``dataset.in_fold``.
    """

    minutes: float = 10.0
    steps: int = 0
    batch: int = 128
    rate: float = 3e-3
    decay: float = 0.05
    average: float = 0.998
    seed: int = 0
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    side: int = 64
    dropout: float = 0.2
    architecture: str = "residual"
    part: str = "1/1"

    warm_up: ClassVar[float] = 0.08
    first_rate: ClassVar[float] = 0.05
    clip_norm: ClassVar[float] = 5.0

    def shape(self, *, units: int) -> Shape:
        """Return the network's shape for a number of action units."""
        names = ("side", "widths", "blocks", "dropout", "architecture")
        return Shape(units=units, **{name: getattr(self, name) for name in names})


RECIPES = {
    "cpu": Recipe(minutes=32),
    "gpu": Recipe(minutes=9, batch=512, rate=4e-3, average=0.999, widths=(48, 96, 192, 272)),
    "judge": Recipe(
        minutes=32, seed=1, architecture="plain", side=48, blocks=(2, 2, 2, 2), part="2/2"
    ),
}
"""By name for ``--recipe``. ``cpu`` (with ``--part 1/2``) and ``judge`` made the shipped weights on
two cores. ``gpu`` stays below 12 MB and should end within ten minutes on one large GPU with
``--loaders 12``; it has **not been measured**."""


def train(
    dataset: RaterDataset,
    recipe: Recipe,
    out: Path,
    *,
    save_every_s: float = 60.0,
    precision: str = "fp32",
    loaders: int = 1,
    progress: loop.Progress = lambda event, figures: None,
) -> Run:
    """Train a rater in ``out``, or continue the run found there.

    Args:
        loaders: threads that prepare batches.

    Raises:
        SettingsError: ``out`` holds a run of another recipe, or the recipe has no limit.
    """
    torch.manual_seed(recipe.seed)
    shape = recipe.shape(units=len(dataset.au_scale))
    network = RaterNetwork(shape).to(checkpoint.device()).to(memory_format=torch.channels_last)
    run = Run(
        out,
        network,
        checkpoint.adamw(network, decay=recipe.decay),
        recipe,
        about={"shape": shape.as_dict()},
        precision=precision,
    )

    def make(step: int) -> tuple[np.ndarray, np.ndarray]:
        return dataset.batch(step, size=recipe.batch, side=recipe.side, seed=recipe.seed)

    def loss_of(batch: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, dict[str, float]]:
        rows, pixels = batch
        face = torch.from_numpy(pixels).to(run.device).unsqueeze(1).float()
        shares = torch.from_numpy(dataset.train.shares[rows]).to(run.device)
        au = torch.from_numpy(dataset.train_au[rows]).to(run.device)
        with run.autocast():
            logits, au_logits, _ = network(face)
        loss = rater_loss(logits.float(), au_logits.float(), shares, au)
        return loss, {"loss": float(loss.detach())}

    loop.fit(
        run,
        loop.prefetch(make, run.step, workers=loaders),
        loss_of,
        evaluate=lambda: held_out_figures(run, dataset),
        evaluate_every=max(1, len(dataset.train) // recipe.batch),
        save_every_s=save_every_s,
        progress=progress,
    )
    return run


def rater_loss(logits: Tensor, au_logits: Tensor, shares: Tensor, au: Tensor) -> Tensor:
    """Add the cross-entropies of shares of votes and known AU proxies.

    Args:
        logits, shares: float[n, 10].
        au_logits, au: float[n, K]; ``au`` is NaN where unknown.
    """
    loss = functional.cross_entropy(logits, shares)
    known = torch.isfinite(au)
    if known.any():
        au_loss = functional.binary_cross_entropy_with_logits(au_logits[known], au[known])
        loss = loss + AU_WEIGHT * au_loss
    return loss


def trained(folder: Path) -> RaterNetwork:
    """Load the averaged network of a run in evaluation mode.

    Raises:
        ModelError: there is no checkpoint, or it is damaged.
    """
    state = checkpoint.load(folder)
    network = RaterNetwork(Shape(**state["about"]["shape"]))
    network.load_state_dict(state["averaged"])
    return network.eval()


def predict(network: RaterNetwork, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rate uint8[n, side, side], averaged with its mirror.

    Returns logits float32[n, 10] and AU proxies float32[n, K].
    """
    served = Served(network.eval(), temperature=1.0)
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 256):
            face = torch.from_numpy(pixels[start : start + 256]).to(device)
            answers, au, _ = served(face)
            # The log of a softmax is the logits minus a constant per row, which softmax ignores.
            parts.append((answers.clamp_min(1e-12).log().cpu().numpy(), au.cpu().numpy()))
    logits, au = (np.concatenate(column) for column in zip(*parts, strict=True))
    return logits, au


def held_out_figures(run: Run, dataset: RaterDataset) -> dict[str, float]:
    """Measure the averaged weights on the held-out faces."""
    faces = dataset.held_out
    if not len(faces):
        return {}
    network: Any = run.averaged.module
    logits, au = predict(network, augment.as_served(faces, side=network.shape.side))
    by_unit = metrics.correlations(list(dataset.au_scale), au, dataset.held_out_au)
    figures = metrics.figures(_softmax(logits), faces.votes)
    return {**figures, "au": metrics.mean_reliable(by_unit)}


def finish(run: Run, dataset: RaterDataset, valid: Faces) -> dict[str, Any]:
    """Calibrate, evaluate on the validation faces, write ``results.json``."""
    network: Any = run.averaged.module
    side, held_out = network.shape.side, dataset.held_out
    logits, _ = predict(network, augment.as_served(held_out, side=side))
    temperature = metrics.best_temperature(logits, held_out.shares)
    closed = _softmax(logits / temperature)[:, : len(EXPRESSIONS)]
    power = metrics.best_power(closed / closed.sum(axis=1, keepdims=True), held_out.votes)
    logits, au = predict(network, augment.as_served(valid, side=side))
    target = targets.rescale(valid.units, valid.proxies, dataset.au_scale)
    by_unit = metrics.correlations(list(dataset.au_scale), au, target)
    return run.write_results(
        commit=revision(),
        hardware=hardware(),
        images={
            "learned": len(dataset.train),
            "held_out": len(held_out),
            "dropped_as_repeated": dataset.n_duplicates,
            "left_to_other_parts": dataset.n_other_folds,
            "valid": len(valid),
            "face_found": float(dataset.train.found.mean()),
        },
        temperature=temperature,
        plurality_power=power,
        au_scale={str(unit): top for unit, top in dataset.au_scale.items()},
        valid={
            **metrics.figures(_softmax(logits / temperature), valid.votes, power=power),
            "au": metrics.mean_reliable(by_unit),
        },
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    return functional.softmax(torch.from_numpy(logits), dim=1).numpy()


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    recipe = _recipe(options)
    with Progress() as bar:
        valid, train_faces = (read_split(split, options, bar) for split in ("valid", "train"))
        dataset = build_dataset(train_faces, valid, part=recipe.part)
        print(
            f"training on {len(dataset.train)} images, {len(dataset.held_out)} held out, "
            f"{dataset.n_duplicates} duplicates dropped, {dataset.n_other_folds} in other folds; "
            f"AU proxies {sorted(dataset.au_scale)}"
        )
        precision, reason = _precision(recipe)
        print(f"precision {precision}: {reason}")
        progress = loop.report_to(bar)
        run = train(
            dataset,
            recipe,
            options.out,
            precision=precision,
            loaders=options.loaders,
            progress=progress,
        )
    results = finish(run, dataset, valid)
    print(f"temperature {results['temperature']}; valid {loop.summary(results['valid'])}")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``read_split`` needs."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with ferplus-{train,valid}.parquet")
    add("--cache", type=Path, default=Path(".cache/ferplus"), help="folder for alignments")
    add("--find", default="pipeline.faces:find", help="face finder as package.module:function")
    add("--workers", type=int, default=2, help="processes that detect faces")


def read_split(split: str, options: argparse.Namespace, bar: Progress) -> Faces:
    """Read the aligned faces of ``train`` or ``valid`` with a progress bar."""
    task = bar.add_task(f"aligning {split}", total=None)
    faces = ferplus.prepare(
        options.data / f"ferplus-{split}.parquet",
        cache=options.cache,
        find=options.find,
        workers=options.workers,
        progress=lambda done, total: bar.update(task, completed=done, total=total),
    )
    bar.update(task, completed=1, total=1)
    print(f"{split}: {len(faces)} images, face found in {faces.found.mean():.1%}")
    return faces


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.train", description=__doc__
    )
    add_data_options(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the run; a run in it is continued")
    add("--threads", type=int, default=2)
    add("--loaders", type=int, default=1, help="threads that prepare batches")
    add("--recipe", default="cpu", choices=list(RECIPES), help="defaults of the options below")
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
    given = {name: getattr(options, name, None) for name in Recipe.__dataclass_fields__}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return replace(RECIPES[options.recipe], **changes)


def _precision(recipe: Recipe) -> tuple[str, str]:
    network = RaterNetwork(recipe.shape(units=1)).to(memory_format=torch.channels_last)
    face = torch.rand(64, 1, recipe.side, recipe.side) * 255
    return checkpoint.faster_precision(lambda: network(face)[0], batch=len(face))


if __name__ == "__main__":
    main()
