"""Train on synthetic faces, test on real ones, with one small network."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
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
    """Train on requested and rectified labels, with and without real faces."""
    n, seeds = options.pool, range(options.trainings)
    fold = {name: draws.pool(easel, real.expression, real.au, n=n * times)
            for name, times in (("1x", 1), ("5x", 5)) if times == 1 or options.five}  # fmt: skip
    rows = fold["1x"]["rows"]
    own = (real.gray[rows], real.expression[rows])
    sets: dict[str, tuple[np.ndarray, np.ndarray]] = {"real": own}
    for name, part in fold.items():
        asked = real.expression[part["rows"]]
        sets[f"asked {name}"] = (part["gray"], asked)
        verdict = rectified(easel, part["gray"], asked, real.au[part["rows"]])
        sets[f"rectified {name}"] = (part["gray"][verdict["kept"]], verdict["label"])
    extra = sets["rectified 1x"]
    sets["real and rectified 1x"] = tuple(  # type: ignore[assignment]
        np.concatenate(pair) for pair in zip(own, extra, strict=True)
    )
    found: dict[str, Any] = {}
    for name, learn in sets.items():
        if len(learn[0]) < BATCH:
            found[name] = {"faces": len(learn[0]), "accuracy": None}
            continue
        result = easel.kept(
            "trainer",
            lambda learn=learn, name=name: accuracy(  # type: ignore[misc]
                learn, (test.gray, label), steps=options.trainer_steps, seeds=seeds, what=name
            ),
            arm=name, n=n, steps=options.trainer_steps, seeds=len(seeds),
        )  # fmt: skip
        found[name] = {
            "faces": len(learn[0]),
            "accuracy": float(result["accuracy"].mean()),
            "by_seed": result["accuracy"].tolist(),
            "recall": np.nanmean(result["recall"], axis=0).tolist(),
        }
    return found


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


def accuracy(
    learn: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    steps: int,
    seeds: Iterable[int],
    what: str,
) -> dict[str, np.ndarray]:
    """Return accuracy [s] and recall [s, 8] on ``test`` after training.

    Args:
        learn: gray uint8[n, 48, 48] and soft labels float[n, 8].
        test: gray uint8[m, 48, 48] and labels int[m].
    """
    guesses = [_guesses(learn, test[0], steps=steps, seed=seed) for seed in track([*seeds], what)]
    right = np.stack([guess == test[1] for guess in guesses])
    recall = [
        [row[test[1] == place].mean() if (test[1] == place).any() else np.nan for row in right]
        for place in range(len(EXPRESSIONS))
    ]
    return {"accuracy": right.mean(axis=1), "recall": np.array(recall).T}


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
