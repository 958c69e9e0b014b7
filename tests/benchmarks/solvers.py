"""Compare solvers at ten steps: ``python -m tests.benchmarks.solvers``.

All solvers start from the same noise under the same guidance and are compared with what the
network itself would draw given many more steps. The second table asks how well a face comes back
from its own inversion. Writes ``results/solvers.json`` and ``results/solvers.md``. With ``--run``
the averaged weights of a training run are looked at before they are exported.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from synthesis import sampler as sampling
from synthesis.pipeline import FaceAUPipeline
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic
from warehouse.vocabulary import PROTOTYPES

RESULTS = Path(__file__).parent / "results"
STEPS = 10
LIMIT = 100
"""Steps of DDIM that stand for infinitely many."""

_CLIPPED = {"thresholding": True, "sample_max_value": 1.0}
SOLVERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "DDIM": (DDIMScheduler, {"clip_sample": False}),
    "DDIM, clipped": (DDIMScheduler, {"clip_sample": True}),
    "DPM++ 2M": (DPMSolverMultistepScheduler, {}),
    "DPM++ 2M, clipped": (DPMSolverMultistepScheduler, _CLIPPED),
    "UniPC": (UniPCMultistepScheduler, {}),
    "UniPC, clipped": (UniPCMultistepScheduler, _CLIPPED),
}
_LEVELS = ("num_train_timesteps", "beta_schedule", "prediction_type", "rescale_betas_zero_snr")


def measured(pipeline: FaceAUPipeline, *, n: int) -> dict[str, Any]:
    """Measure each solver's distance to the limit and its seconds per face."""
    conditions = _conditions(pipeline)
    limit, _ = _drawn(pipeline, "DDIM", conditions, n=n, steps=LIMIT)
    rows = {}
    for name in SOLVERS:
        faces, seconds = _drawn(pipeline, name, conditions, n=n, steps=STEPS)
        rows[name] = {
            "distance": _rmse(faces, limit),
            "contrast": float(_edges(faces) / _edges(limit)),
            "saturated": float(((faces == 0) | (faces == 255)).mean()),
            "seconds_per_face": seconds / len(faces),
        }
    return {"faces": len(limit), "solvers": rows, "inversion": _inversion(pipeline, limit)}


def _conditions(pipeline: FaceAUPipeline) -> list[tuple[dict[int, float], str]]:
    supported = set(pipeline.conditioner.config.supported)
    return [
        ({unit: 0.8 for unit in units if unit in supported}, name)
        for name, units in PROTOTYPES.items()
        if name != "neutral"
    ]


def _drawn(
    pipeline: FaceAUPipeline, solver: str, conditions: list[Any], *, n: int, steps: int
) -> tuple[np.ndarray, float]:
    kind, options = SOLVERS[solver]
    levels = {key: pipeline.scheduler.config[key] for key in _LEVELS}
    own = FaceAUPipeline(
        **{
            **pipeline.components,
            "scheduler": kind(**levels, timestep_spacing="trailing", **options),
        }
    )
    own.set_progress_bar_config(disable=True)
    au, expression = (list(column) for column in zip(*conditions, strict=True))
    started = time.perf_counter()
    images = own(
        au, expression, num_images_per_prompt=n, num_inference_steps=steps, output_type="array"
    ).images
    return images.astype(float), time.perf_counter() - started


def _inversion(pipeline: FaceAUPipeline, faces: np.ndarray) -> dict[str, float]:
    """Measure faces against their reconstruction, by rounds per step."""
    pictures = [face.astype(np.uint8) for face in faces[:8]]
    usual, back = sampling.FIXED_POINT_ROUNDS, {}
    try:
        for rounds in (1, 2, 4, 8):
            sampling.FIXED_POINT_ROUNDS = rounds
            again = pipeline(
                {},
                num_images_per_prompt=len(pictures),
                reference=pictures,
                layout="invert",
                strength=0.7,
                num_inference_steps=STEPS,
                guidance_scale=0.0,
                output_type="array",
            ).images
            back[str(rounds)] = _rmse(again.astype(float), faces[: len(pictures)])
    finally:
        sampling.FIXED_POINT_ROUNDS = usual
    return back


def _rmse(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(one - other).mean()))


def _edges(faces: np.ndarray) -> float:
    return float(np.abs(np.diff(faces, axis=2)).mean())


def page(results: dict[str, Any]) -> str:
    slowest = max(row["seconds_per_face"] for row in results["solvers"].values())
    lines = [
        "# Solvers at ten steps",
        "",
        f"{results['date']}, commit {results['commit']}, {results['hardware']}; weights: "
        f"{results['weights']}. {results['faces']} faces, guidance 2, same noise. Distance: root "
        f"mean square, in grey levels, to {LIMIT} steps of DDIM without clipping. Edges: mean "
        "step between neighbouring pixels, relative to the same.",
        "",
        "| solver | distance | edges | saturated pixels | time, slowest = 1 |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(results["solvers"].items(), key=lambda pair: pair[1]["distance"]):
        lines.append(
            f"| {name} | {row['distance']:.2f} | {row['contrast']:.3f} | {row['saturated']:.1%} "
            f"| {row['seconds_per_face'] / slowest:.2f} |"
        )
    lines += [
        "",
        f"Back from inversion (strength 0.7, {STEPS} steps, nothing asked), the same distance to "
        "the picture that went in:",
        "",
        "| rounds per step | distance |",
        "|---|---|",
        *(f"| {rounds} | {value:.2f} |" for rounds, value in results["inversion"].items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.solvers", description=__doc__)
    parser.add_argument("--run", type=Path, help="a training run in place of the shipped weights")
    parser.add_argument("--faces", type=int, default=4, help="per condition; there are seven")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        from synthesis.training.export import assemble

        pipeline, about = assemble(options.run)
        weights = f"a training run after {about['step']} steps"
    else:
        pipeline, weights = FaceAUPipeline.from_default(), "shipped"
    pipeline.set_progress_bar_config(disable=True)
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "weights": weights,
        **measured(pipeline, n=options.faces),
    }
    atomic.write_text(options.out / "solvers.json", json.dumps(results, indent=1) + "\n")
    text = page(results)
    atomic.write_text(options.out / "solvers.md", text)
    print(text)


if __name__ == "__main__":
    main()
