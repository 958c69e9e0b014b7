"""What a trained network says, and how good that is."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from annotation.raters.network import RaterNetwork, Served
from annotation.raters.training import augment, metrics, targets
from annotation.raters.training.checkpoint import Run
from annotation.raters.training.config import Recipe
from annotation.raters.training.dataset import Lesson
from annotation.raters.training.ferplus import Faces
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS


def predict(network: RaterNetwork, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8[n, side, side] to logits float32[n, 10] and AU float32[n, K], mirrors averaged."""
    served = Served(network.eval(), temperature=1.0)
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 256):
            face = torch.from_numpy(pixels[start : start + 256]).to(device)
            answers, au, _ = served(face)
            # log of a softmax is the logits less a constant per row, which softmax ignores.
            parts.append((answers.clamp_min(1e-12).log().cpu().numpy(), au.cpu().numpy()))
    logits, au = (np.concatenate(column) for column in zip(*parts, strict=True))
    return logits, au


def held_out_figures(run: Run, lesson: Lesson) -> dict[str, float]:
    """The figures of the averaged weights on the held-out part of the training file."""
    if not len(lesson.hold):
        return {}
    logits, au = predict(run.averaged, augment.as_served(lesson.hold, side=run.shape.side))
    answers = _shares(logits)
    by_unit = metrics.correlations(list(lesson.scale), au, lesson.hold_au)
    figures = metrics.figures(answers, lesson.hold.votes)
    return {**figures, "au": metrics.mean_reliable(by_unit)}


def finish(run: Run, lesson: Lesson, valid: Faces, recipe: Recipe) -> dict[str, Any]:
    """Calibrate, look at the validation file once, write ``results.json``; returns its content."""
    logits, _ = predict(run.averaged, augment.as_served(lesson.hold, side=recipe.side))
    temperature = metrics.best_temperature(logits, lesson.hold.shares)
    held = _shares(logits / temperature)[:, : len(EXPRESSIONS)]
    power = metrics.best_power(held / held.sum(axis=1, keepdims=True), lesson.hold.votes)
    logits, au = predict(run.averaged, augment.as_served(valid, side=recipe.side))
    answers = _shares(logits / temperature)
    wanted = targets.rescale(valid.units, valid.proxies, lesson.scale)
    by_unit = metrics.correlations(list(lesson.scale), au, wanted)
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "device": run.device,
        "precision": run.precision,
        "recipe": asdict(recipe),
        "steps": run.step,
        "minutes": round(run.seconds / 60, 1),
        "images": {
            "learned": len(lesson.learn),
            "held_out": len(lesson.hold),
            "dropped_as_repeated": lesson.repeated,
            "left_to_other_parts": lesson.elsewhere,
            "valid": len(valid),
            "face_found": float(lesson.learn.found.mean()),
        },
        "temperature": temperature,
        "plurality_power": power,
        "au_scale": {str(unit): top for unit, top in lesson.scale.items()},
        "valid": {
            **metrics.figures(answers, valid.votes, power=power),
            "au": metrics.mean_reliable(by_unit),
        },
        "history": run.history,
    }
    atomic.write_text(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def _shares(logits: np.ndarray) -> np.ndarray:
    return functional.softmax(torch.from_numpy(logits), dim=1).numpy()
