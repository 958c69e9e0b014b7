"""Train on synthetic faces, test on real ones, with one small network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from pipeline.synthesis import class_thresholds
from pipeline.synthesis.service import faceless, labelling_raters, rate
from synthesis.pseudo_labels import rectify
from tests.benchmarks import synthesis_draws as draws
from tests.benchmarks.synthesis_draws import Easel
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from synthesis.training.dataset import TrainingFaces

BATCH = 128
_RATE = 3e-3
_SHIFT = 3


def arms(
    easel: Easel,
    real: TrainingFaces,
    test: TrainingFaces,
    label: np.ndarray,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train on requested and rectified labels, with and without real faces.

    Returns:
        by set: ``faces``, and if they suffice ``accuracy`` and ``macro_f1`` (mean over seeds),
        ``by_seed``, and ``recall`` [8]; and under ``gain`` the macro-F1 that synthetic faces add to
        as many real ones, with its interval over test faces.
    """
    n, seeds = options.pool, range(options.trainings)
    fold = {name: draws.pool(easel, real.expression, real.au, n=n * times)
            for name, times in (("1x", 1), ("5x", 5)) if times == 1 or options.five}  # fmt: skip
    sets: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, part in fold.items():
        requested = real.expression[part["rows"]]
        sets[f"real {name}"] = (real.gray[part["rows"]], requested)
        sets[f"asked {name}"] = (part["gray"], requested)
        verdict = rectified(easel, part["gray"], requested, real.au[part["rows"]])
        sets[f"rectified {name}"] = (part["gray"][verdict["kept"]], verdict["label"])
    both = "real and rectified 1x"
    sets[both] = tuple(  # type: ignore[assignment]
        np.concatenate(pair) for pair in zip(sets["real 1x"], sets["rectified 1x"], strict=True)
    )
    found: dict[str, Any] = {}
    guesses: dict[str, np.ndarray] = {}
    for name, learn in sets.items():
        if len(learn[0]) < BATCH:
            found[name] = {"faces": len(learn[0]), "accuracy": None}
            continue
        guesses[name] = easel.kept(
            "trained",
            lambda learn=learn, name=name: {  # type: ignore[misc]
                "guesses": np.stack([
                    _guesses(learn, test.gray, steps=options.trainer_steps, seed=seed)
                    for seed in track(seeds, name)
                ])
            },
            arm=name, n=n, steps=options.trainer_steps, seeds=len(seeds),
        )["guesses"]  # fmt: skip
        found[name] = {"faces": len(learn[0]), **scores(guesses[name], label)}
    gain = _gain(guesses[both], guesses["real 1x"], label) if both in guesses else None
    return {"learning": found, "gain": gain}


def scores(guesses: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return accuracy, macro-F1 and recall of guesses int[seeds, n]."""
    right = (guesses == label).mean(axis=1)
    classes = range(len(EXPRESSIONS))
    recall = [
        (guesses[:, label == place] == place).mean() if (label == place).any() else np.nan
        for place in classes
    ]
    return {
        "accuracy": float(right.mean()),
        "by_seed": right.tolist(),
        "macro_f1": float(np.mean([_macro_f1(row, label) for row in guesses])),
        "recall": recall,
    }


def _macro_f1(guess: np.ndarray, label: np.ndarray) -> float:
    """Return the mean F1 of the classes that ``label`` has."""
    n = len(EXPRESSIONS)
    table = np.bincount(label * n + guess, minlength=n * n).reshape(n, n)
    present = table.sum(axis=1) > 0
    f1 = 2 * table.diagonal() / np.maximum(table.sum(axis=0) + table.sum(axis=1), 1)
    return float(f1[present].mean())


def _gain(
    more: np.ndarray, less: np.ndarray, label: np.ndarray, *, times: int = 500
) -> dict[str, float]:
    """Return the mean difference of macro-F1 over seeds and its 95 % interval."""

    def gained(rows: np.ndarray) -> float:
        pairs = zip(more[:, rows], less[:, rows], strict=True)
        own = label[rows]
        return float(np.mean([_macro_f1(one, own) - _macro_f1(two, own) for one, two in pairs]))

    rng = np.random.default_rng(0)
    drawn = [gained(rng.integers(0, len(label), len(label))) for _ in range(times)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"value": gained(np.arange(len(label))), "low": float(low), "high": float(high)}


def rectified(
    easel: Easel, gray: np.ndarray, asked: np.ndarray, au: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the synthetic faces that are kept, and their labels."""

    def make() -> dict[str, np.ndarray]:
        crops = [cv2.resize(face, (224, 224), interpolation=cv2.INTER_CUBIC) for face in gray]
        lost = np.concatenate([
            faceless(np.repeat(np.stack(crops[at : at + 64])[..., None], 3, axis=3))
            for at in range(0, len(crops), 64)
        ])  # fmt: skip
        # As in a home: never the judge, which evaluates what is trained on these labels.
        labelling = labelling_raters("default")
        bars = class_thresholds.of_raters([one.rater_id for one in labelling])
        readings = rate(np.repeat(gray[..., None], 3, axis=3), labelling)
        verdict = rectify(asked, au, readings, faceless=lost, thresholds=bars)
        kept = (verdict["action"] != "dropped").to_numpy()
        return {"kept": kept, "label": verdict["soft_label"].to_numpy()[kept]}

    return easel.kept("rectified by class", make, n=len(gray))


def _guesses(
    learn: tuple[np.ndarray, np.ndarray], test: np.ndarray, *, steps: int, seed: int
) -> np.ndarray:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.01)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps)
    for _ in range(steps):
        rows = rng.integers(0, len(learn[0]), BATCH)
        faces = torch.from_numpy(_shaken(learn[0][rows], rng)).unsqueeze(1)
        wanted = torch.from_numpy(learn[1][rows].astype(np.float32))
        loss = functional.cross_entropy(network(_standardised(faces)), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        course.step()
    network.eval()
    with torch.inference_mode():
        parts = [
            network(_standardised(torch.from_numpy(test[at : at + 512]).unsqueeze(1))).argmax(dim=1)
            for at in range(0, len(test), 512)
        ]
    return torch.cat(parts).numpy()


def _network() -> nn.Module:
    """Four plain stages of 3 x 3 convolutions, 0.3 million weights."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
    for width, out in ((4, 32), (32, 64), (64, 96), (96, 128)):
        layers += [nn.Conv2d(width, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if out < 128 else []
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 8)]
    return nn.Sequential(*layers)


def _standardised(faces: Tensor) -> Tensor:
    faces = faces.float()
    centred = faces - faces.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 4)


def _shaken(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror and shift faces by up to three pixels, with repeated edges."""
    side = gray.shape[1]
    wide = np.pad(gray, ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT)), mode="edge")
    out = np.empty_like(gray)
    for at, (x, y, flip) in enumerate(rng.integers(0, (2 * _SHIFT + 1, 2 * _SHIFT + 1, 2),
                                                   (len(gray), 3))):  # fmt: skip
        face = wide[at, y : y + side, x : x + side]
        out[at] = face[:, ::-1] if flip else face
    return out
