"""Figures of synthetic faces against their requests, by target."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotation.raters.training import metrics
from annotation.raters.training.targets import UNRELIABLE
from pipeline.synthesis.service import BATCH
from synthesis import evaluation
from synthesis import evaluation as fidelity
from synthesis.request import SWEEP_LEVELS, FaceRequest
from synthesis.training.dataset import TrainingFaces
from tests.benchmarks import synthesis_draws as draws
from tests.benchmarks.synthesis_draws import Easel
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS


def control(easel: Easel, real: TrainingFaces, options: argparse.Namespace) -> dict[str, Any]:
    """AU response alone and beside a label, coverage, selectivity, swaps."""
    units = [unit for unit in easel.maker.supported_units if unit not in UNRELIABLE]
    columns = [AU_INDEX[unit] for unit in units]
    levels = np.array(SWEEP_LEVELS)
    bare, beside = (
        np.stack([draws.sweep(easel, unit, seeds=n, labelled=yes) for unit in units])
        for n, yes in ((options.seeds, False), (options.seeds_labelled, True))
    )
    own = np.stack([sweep[:, :, column] for sweep, column in zip(bare, columns, strict=True)])
    own_beside = np.stack([s[:, :, column] for s, column in zip(beside, columns, strict=True)])
    responses = [evaluation.response(levels, unit) for unit in own]
    slopes = np.stack([evaluation.slope(levels, sweep[:, :, columns]) for sweep in bare])
    selective, by_unit = evaluation.selectivity(units, slopes)
    paired = own[:, : options.seeds_labelled]
    alone, with_label = (evaluation.mean_response(levels, part) for part in (paired, own_beside))
    asked, measured = draws.swapped(easel, real.au, pairs=options.pairs)
    return {
        "au_response": asdict(evaluation.mean_response(levels, own)),
        "au_response_pooled": float(np.mean([one.pooled for one in responses])),
        "au_coverage": evaluation.coverage(responses),
        "au_alone_ratio": alone.value / with_label.value if with_label.value else float("nan"),
        "selectivity": selective,
        "swaps": asdict(evaluation.figure(evaluation.swaps(asked, measured).mean(axis=1))),
        "swaps_unbiased": asdict(
            evaluation.figure(evaluation.swaps_unbiased(asked, measured).astype(float))
        ),
        "units": {
            str(unit): {
                "r": asdict(one.r), "p": one.p, "slope": one.slope, "pooled": one.pooled,
                "selectivity": by_unit.get(unit),
                "beside_label": evaluation.response(levels, labelled).r.value,
            }
            for unit, one, labelled in zip(units, responses, own_beside, strict=True)
        },
    }  # fmt: skip


def ceilings(easel: Easel, test: TrainingFaces, label: np.ndarray) -> dict[str, Any]:
    """Measure judge and guide on real faces, the upper bound of all figures."""
    found: dict[str, Any] = {"accuracy": {}}
    for role in easel.raters:
        ratings = easel.read(test.gray, role)
        hits = evaluation.agreement(label, ratings.expression)
        found["accuracy"][role] = float(hits.mean())
        if role == "judge":
            numbers = list(AU_INDEX)
            found["au"] = metrics.correlations(numbers, ratings.au, test.au)
            found["recall"] = [float(hits[label == k].mean()) for k in range(len(EXPRESSIONS))]
    return found


def annotating(
    easel: Easel, test: TrainingFaces, label: np.ndarray, folder: Path | None
) -> dict[str, Any]:
    """Who reads real faces best: each rater, the annotator, and their means."""
    answers = {role: easel.read(test.gray, role).expression for role in easel.raters}
    if folder is not None:
        from synthesis.expression_head import Annotator

        answers["annotator"] = Annotator.load(folder, easel.maker.pipeline).rate(test.gray)
    sides = [*combinations(answers, 1), *combinations(answers, 2)]
    sides += [tuple(answers)] if len(answers) > 2 else []
    found = {}
    for side in sides:
        mean = np.mean([answers[name] for name in side], axis=0)
        hits = evaluation.agreement(label, mean)
        recall = [hits[label == k].mean() for k in range(len(EXPRESSIONS)) if (label == k).any()]
        found[" + ".join(side)] = {
            "accuracy": asdict(evaluation.figure(hits.astype(float))),
            "mean_recall": float(np.mean(recall)),
        }
    return found


def expression(easel: Easel, ceiling: dict[str, Any], *, each: int) -> dict[str, Any]:
    """Measure agreement with the requested expression, relative to the judge."""
    parts = {name: draws.expressions(easel, each=each, guided=name == "on")
             for name in ("off", "on")}  # fmt: skip
    hits = {
        (name, role): evaluation.agreement(part["asked"], part[role])
        for name, part in parts.items()
        for role in easel.raters
    }
    rate = {key: float(value.mean()) for key, value in hits.items()}
    # The eight are asked equally often, so the judge is measured that way too.
    fair = float(np.nanmean(ceiling["recall"]))
    return {
        **{
            f"expression_{name}": asdict(
                evaluation.figure(
                    hits[name, "judge"].astype(float), lambda hit: float(hit.mean()) / fair
                )
            )
            for name in ("off", "on")
        },
        "over_accuracy": {
            name: rate[name, "judge"] / ceiling["accuracy"]["judge"] for name in ("off", "on")
        },
        "agreement": {f"{name} {role}": value for (name, role), value in rate.items()},
        "judge_mean_recall": fair,
        "honesty_gap": evaluation.honesty_gap(
            guide=(rate["off", "guide"], rate["on", "guide"]),
            judge=(rate["off", "judge"], rate["on", "judge"]),
        ),
        "by_expression": [
            {
                "expression": name,
                **{key: float(hits[key, "judge"][parts[key]["asked"] == k].mean())
                   for key in ("off", "on")},
                "judge_recall": ceiling["recall"][k],
            }
            for k, name in enumerate(EXPRESSIONS)
        ],
    }  # fmt: skip


def closeness(
    easel: Easel, made: np.ndarray, real: TrainingFaces, test: TrainingFaces
) -> dict[str, Any]:
    """Fréchet and kernel distance and memorisation, in the judge's features.

    Every distance is between sets of the same size, because its bias depends on it.
    """
    n = min(len(made), len(test.gray))
    order = np.random.default_rng(0).permutation(len(real.gray))
    feature = {
        "made": easel.read(made[:n]).feature,
        # All of them: a copy of any one would be a copy.
        "train": easel.kept(
            "features", lambda: {"train": easel.read(real.gray[order]).feature}, n=len(order)
        )["train"],
        "test": easel.read(test.gray[:n]).feature,
        "blurred": easel.read(
            np.stack([cv2.GaussianBlur(face, (0, 0), 2) for face in test.gray[:n]])
        ).feature,
    }
    train = feature["train"][:n]
    return {
        "n": n,
        **{
            name: {
                side: asdict(of(rows, feature["test"]))
                for side, rows in (
                    ("made", feature["made"]), ("train", train), ("blurred", feature["blurred"])
                )
            }
            for name, of in (
                ("frechet", fidelity.frechet_interval), ("kernel", fidelity.kernel_interval)
            )
        },
        "variance": {side: float(feature[side].var(axis=0, ddof=1).sum()) for side in feature},
        "memorisation": fidelity.memorisation(feature["made"], feature["train"], feature["test"]),
    }  # fmt: skip


def speed(easel: Easel) -> dict[str, float]:
    """Measure seconds per image at the default and at five times the steps."""
    orders = [FaceRequest({12: 0.8}, "happiness", seed) for seed in range(BATCH)]
    long = replace(
        easel, maker=replace(easel.maker, num_inference_steps=5 * easel.maker.num_inference_steps)
    )
    taken: list[tuple[Easel, list[float]]] = [(easel, []), (long, [])]
    for _ in range(3):
        for one, rounds in taken:
            start = time.perf_counter()
            one.draw(orders, what=f"{one.maker.num_inference_steps} steps")
            rounds.append((time.perf_counter() - start) / BATCH)
    best = [min(rounds) for _, rounds in taken]
    return {"seconds_per_image": best[0], "ratio_to_five_times_the_steps": best[0] / best[1]}
