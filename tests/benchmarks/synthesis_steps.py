"""Compare ten steps with fifty on the same seeds."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from synthesis import evaluation
from synthesis.training.dataset import TrainingFaces
from tests.benchmarks import synthesis_draws as draws
from tests.benchmarks.synthesis_draws import Easel
from tests.benchmarks.synthesis_figures import closeness, control

STEPS = (10, 50)
_FEW = argparse.Namespace(seeds=6, seeds_labelled=2, pairs=48)
_EACH, _POOL = 12, 256


def compared(easel: Easel, real: TrainingFaces, test: TrainingFaces) -> dict[str, dict[str, float]]:
    """Measure each figure at ``STEPS``, on fewer faces than the main table."""
    columns = {
        str(steps): _figures(
            replace(easel, maker=replace(easel.maker, num_inference_steps=steps)),
            real=real,
            test=test,
        )
        for steps in STEPS
    }
    names = next(iter(columns.values()))
    return {name: {steps: column[name] for steps, column in columns.items()} for name in names}


def _figures(easel: Easel, *, real: TrainingFaces, test: TrainingFaces) -> dict[str, float]:
    shown: dict[str, Any] = control(easel, real, _FEW)
    asked = draws.expressions(easel, each=_EACH, guided=False)
    made = draws.pool(easel, real.expression, real.au, n=_POOL)["gray"]
    near = closeness(easel, made, real, test)
    return {
        "AU response r": shown["au_response"]["value"],
        "swap accuracy": shown["swaps"]["value"],
        "selectivity": shown["selectivity"],
        "expression agreement, no guidance": float(
            np.mean(evaluation.agreement(asked["asked"], asked["judge"]))
        ),
        "Fréchet distance": near["frechet"]["made"]["value"],
        "memorisation": near["memorisation"],
    }
