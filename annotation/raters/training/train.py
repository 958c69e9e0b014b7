"""Train a machine rater.

Run ``python -m annotation.raters.training.train --data DIR --out DIR``.

Steps: align FER+, drop duplicates and pictures of the validation file, hold out 6 %, train the
teachers that the recipe names, train on soft votes, AU proxies and the teachers' answers with a
one-cycle schedule and averaged weights, fit the temperature on the held-out faces, evaluate once on
the validation file. ``annotation.raters.training.export`` turns the result into ONNX.

Teachers see the same augmented and mixed view as the rater that they teach ("patient and
consistent", Beyer et al., 2022, arXiv:2106.05237).

``--data`` may be a file of ``annotation.raters.training.prepare``, for a machine without the face
finder. It holds no validation file: start the command again with the folder and the same ``--out``
to calibrate and evaluate.

A killed run continues from its last checkpoint when it is started again with the same ``--out``.
On one machine, precision and number of threads, ``--steps`` gives the same weights every time.
``--minutes`` does not, because the schedule follows the clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from annotation.raters.network import RaterNetwork, Served
from annotation.raters.training import augment, distill, ferplus, metrics, targets
from annotation.raters.training.dataset import Batch, Batches, RaterDataset, UniqueFaces
from annotation.raters.training.ferplus import Faces
from annotation.raters.training.recipe import RECIPES, Recipe
from warehouse.build_info import revision
from warehouse.errors import SettingsError
from warehouse.training import checkpoint, loop
from warehouse.training.checkpoint import Run
from warehouse.vocabulary import EXPRESSIONS

AU_WEIGHT = 0.5
"""Weight of the AU loss. The cross-entropy of the answers is about three times as large."""

EVALUATE_EVERY = 200
"""Fewest steps between two evaluations on the held-out faces."""


def train(
    dataset: RaterDataset,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "cpu",
    teachers: Sequence[distill.Teacher] = (),
    start: distill.Teacher | None = None,
    save_every_s: float = 60.0,
    precision: str = "fp32",
    loaders: int = 1,
    progress: loop.Progress = lambda event, figures: None,
) -> Run:
    """Train a rater in ``out``, or continue the run found there.

    Args:
        teachers: of ``load_teachers``; they know the dataset's action units in its order.
        start: rater whose weights a new run begins with.
        loaders: threads that prepare batches; unused on a GPU.

    Raises:
        SettingsError: ``out`` holds a run of another recipe, or the recipe has no limit.
        ModelError: ``start`` has another shape.
    """
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True  # faces have one size, so the search pays
    shape = recipe.shape(units=len(dataset.au_scale))
    network = RaterNetwork(shape)
    if start is not None:
        checkpoint.load_weights(network, start.network.state_dict(), source=start.name)
    network = network.to(device).to(memory_format=torch.channels_last)
    about: dict[str, Any] = {"shape": shape.as_dict()}
    if teachers or start is not None:
        about["teacher_ids"] = [one.name for one in teachers]
        about["started_from"] = start.name if start else ""
    run = Run(
        out,
        network,
        checkpoint.adamw(network, decay=recipe.decay, fused=True),
        recipe,
        about=about,
        precision=precision,
    )
    frozen = [one.network.to(device).eval().requires_grad_(False) for one in teachers]
    batches = Batches(dataset, device)
    served = augment.as_served(dataset.held_out, side=shape.side) if len(dataset.held_out) else None

    def make(step: int) -> Batch:
        return batches.batch(
            step, size=recipe.batch, side=recipe.side, seed=recipe.seed, mix=recipe.mix
        )

    def loss_of(batch: Batch) -> tuple[Tensor, loop.Figures]:
        face = batch.face.contiguous(memory_format=torch.channels_last)
        with run.autocast():
            logits, au_logits, _ = network(face)
            answers, au = distill.teach(frozen, face) if frozen else (None, None)
        loss = rater_loss(
            logits.float(), au_logits.float(), batch, answers, au, weight=recipe.distill
        )
        return loss, {"loss": loss.detach()}

    loop.fit(
        run,
        loop.prefetch(make, run.step, workers=loaders, device=device),
        loss_of,
        evaluate=lambda: held_out_figures(run, dataset, served),
        evaluate_every=max(EVALUATE_EVERY, len(dataset.train) // recipe.batch),
        save_every_s=save_every_s,
        progress=progress,
    )
    return run


def load_teachers(
    dataset: RaterDataset, recipe: Recipe, out: Path, **options: Any
) -> list[distill.Teacher]:
    """Load or train the teachers of a recipe.

    Teachers that are trained are runs in ``out``, and continue there like any run. They have the
    fold of the recipe, seeds of their own, and the limit of steps if the recipe has one.

    Args:
        options: of ``train``.

    Raises:
        SettingsError: a teacher learned from pictures outside the recipe's fold.
    """
    teachers = []
    for place, name in enumerate(recipe.teachers):
        if name not in RECIPES:
            teachers.append(distill.load_rater(name, recipe, dataset))
            continue
        stage = replace(RECIPES[name], part=recipe.part, seed=recipe.seed + 100 * (place + 1))
        if recipe.steps:
            stage = replace(stage, steps=recipe.steps, minutes=recipe.minutes)
        run = train(dataset, stage, out / f"teacher-{place + 1}-{name}", **options)
        averaged: Any = run.averaged.module
        teachers.append(distill.Teacher(averaged, f"recipe {name}"))
    return teachers


def rater_loss(
    logits: Tensor,
    au_logits: Tensor,
    batch: Batch,
    answers: Tensor | None = None,
    au: Tensor | None = None,
    *,
    weight: float = 0.0,
) -> Tensor:
    """Add the cross-entropies of shares of votes and known AU proxies.

    Args:
        logits: float[n, 10].
        au_logits: float[n, K].
        answers, au: of the teachers; they fill in unknown action units.
        weight: of the teachers against votes and known proxies.
    """
    known, shares, wanted = torch.isfinite(batch.au), batch.shares, torch.nan_to_num(batch.au)
    counted = known
    if answers is not None and au is not None:
        shares = (1 - weight) * shares + weight * answers
        wanted = torch.where(known, (1 - weight) * wanted + weight * au, au)
        counted = torch.ones_like(known)
    each = functional.binary_cross_entropy_with_logits(au_logits, wanted, reduction="none")
    au_loss = (each * counted).sum() / counted.sum().clamp(min=1)
    return functional.cross_entropy(logits, shares) + AU_WEIGHT * au_loss


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


def held_out_figures(
    run: Run, dataset: RaterDataset, served: np.ndarray | None
) -> dict[str, float]:
    """Measure the averaged weights on the held-out faces.

    Args:
        served: these faces as the pipeline crops them, uint8[n, side, side].
    """
    faces = dataset.held_out
    if served is None:
        return {}
    network: Any = run.averaged.module
    logits, au = predict(network, served)
    by_unit = metrics.correlations(list(dataset.au_scale), au, dataset.held_out_au)
    figures = metrics.figures(_softmax(logits), faces.votes)
    return {**figures, "au": metrics.mean_reliable(by_unit)}


def finish(folder: Path, dataset: RaterDataset, valid: Faces) -> dict[str, Any]:
    """Calibrate and evaluate a finished run, write ``results.json``."""
    state = checkpoint.load(folder)
    network, held_out = distill.network_of(state, folder), dataset.held_out
    side = network.shape.side
    logits, _ = predict(network, augment.as_served(held_out, side=side))
    temperature = metrics.best_temperature(logits, held_out.shares)
    closed = _softmax(logits / temperature)[:, : len(EXPRESSIONS)]
    power = metrics.best_power(closed / closed.sum(axis=1, keepdims=True), held_out.votes)
    logits, au = predict(network, augment.as_served(valid, side=side))
    target = targets.rescale(valid.units, valid.proxies, dataset.au_scale)
    by_unit = metrics.correlations(list(dataset.au_scale), au, target)
    return checkpoint.write_results(
        folder,
        state,
        commit=revision(),
        images={
            "learned": len(dataset.train),
            "held_out": len(held_out),
            "dropped_as_repeated": dataset.n_duplicates,
            "left_to_other_parts": dataset.n_other_folds,
            "valid": len(valid),
            "face_found": float(dataset.train.found.mean()),
        },
        teachers=state["about"].get("teacher_ids", []),
        started_from=state["about"].get("started_from", ""),
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
    device = checkpoint.device(options.device)
    if options.recipe.startswith("gpu") and device == "cpu" and options.device != "cpu":
        raise SettingsError(
            f"The recipe {options.recipe} is made for a GPU",
            got="no GPU",
            hint="give --recipe cpu, or --device cpu to train it slowly",
        )
    with Progress() as bar:
        valid, unique = read_faces(options, bar)
        dataset = unique.part(recipe.part)
        print(
            f"training on {len(dataset.train)} images, {len(dataset.held_out)} held out, "
            f"{dataset.n_duplicates} duplicates dropped, {dataset.n_other_folds} in other folds; "
            f"AU proxies {sorted(dataset.au_scale)}"
        )
        precision, reason = options.precision, "as given"
        if precision == "measure":
            precision, reason = _precision(recipe, device=device)
        checkpoint.check_precision(precision, device)
        print(f"device {device}, precision {precision}: {reason}")
        # The run may come from another machine, without its teachers.
        if not checkpoint.finished(options.out, recipe):
            how: dict[str, Any] = {
                "device": device,
                "precision": precision,
                "loaders": options.loaders,
                "progress": loop.report_to(bar),
            }
            teachers = load_teachers(dataset, recipe, options.out, **how)
            start = distill.load_rater(recipe.start, recipe, dataset) if recipe.start else None
            train(dataset, recipe, options.out, teachers=teachers, start=start, **how)
    if valid is None:
        print(f"trained; start again with the folder of FER+ and --out {options.out} to evaluate")
        return
    results = finish(options.out, dataset, valid)
    print(f"temperature {results['temperature']}; valid {loop.summary(results['valid'])}")


def read_faces(options: argparse.Namespace, bar: Progress) -> tuple[Faces | None, UniqueFaces]:
    """Read validation faces, if there are any, and training faces."""
    if options.data.is_file():
        return None, UniqueFaces.load(options.data)
    valid, train_faces = (read_split(split, options, bar) for split in ("valid", "train"))
    return valid, UniqueFaces.of(train_faces, valid)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``read_split`` needs."""
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="folder with ferplus-{train,valid}.parquet, or a file of ...training.prepare",
    )
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
    add("--mix", type=float, help="part of a batch for mixup")
    add("--teachers", nargs="*", help="recipes, shipped raters, .onnx files or folders of runs")
    add("--distill", type=float, help="weight of the teachers against the votes")
    add("--start", help="shipped rater, .onnx file or folder of a run to begin with")
    add("--device", choices=checkpoint.DEVICES, default="auto")
    add("--precision", choices=("measure", "fp32", "bf16"), default="measure")
    return parser.parse_args(arguments)


def _recipe(options: argparse.Namespace) -> Recipe:
    given = {name: getattr(options, name, None) for name in Recipe.__dataclass_fields__}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return replace(RECIPES[options.recipe], **changes)


def _precision(recipe: Recipe, *, device: str) -> tuple[str, str]:
    network = RaterNetwork(recipe.shape(units=1)).to(memory_format=torch.channels_last)
    face = torch.rand(64, 1, recipe.side, recipe.side) * 255
    return checkpoint.faster_precision(lambda: network(face)[0], batch=len(face), device=device)


if __name__ == "__main__":
    main()
