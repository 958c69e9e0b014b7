"""Choose the default guidance on set-aside training faces.

``python -m tests.benchmarks.guidance --cache DIR`` generates a face for every set-aside face, with
its label and its action units, at several scales and intervals. The guidance rater reads them: the
judge must have no part in the choice. Writes ``results/guidance.{json,md}``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from annotation import raters
from annotation.raters.training.targets import UNRELIABLE
from pipeline.synthesis.service import FaceGenerator
from synthesis import evaluation
from synthesis.request import GUIDANCE_END, GUIDANCE_SCALE, GUIDANCE_START
from synthesis.training.dataset import FaceDataset, TrainingFaces
from tests.benchmarks.synthesis_draws import Easel, possible
from tests.benchmarks.synthesis_faces import real_faces
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS

RESULTS = Path(__file__).parent / "results"
SETTINGS = (
    (1.0, 0.0, 1.0),
    (1.25, 0.0, 1.0),
    (1.5, 0.0, 1.0),
    (2.0, 0.0, 1.0),
    (1.5, 0.2, 0.7),
    (2.0, 0.2, 0.7),
    (3.0, 0.2, 0.7),
)
"""Scale, first and last share of the steps. The interval is that of Kynkäänniemi et al. (2024) in
ten steps of this schedule: log(signal²/noise²) between -3.5 and 1.2."""

DEFAULT = (GUIDANCE_SCALE, GUIDANCE_START, GUIDANCE_END)
SEED = 50_000
BATCH = 64


def measured(easel: Easel, faces: Any, setting: tuple[float, float, float]) -> dict[str, Any]:
    """Measure one setting on faces generated like ``faces``."""
    scale, start, end = setting

    def make() -> dict[str, np.ndarray]:
        begun, gray = time.process_time(), []
        for at in range(0, len(faces), BATCH):
            rows = slice(at, at + BATCH)
            gray.append(
                easel.maker.pipeline(
                    [possible(row) for row in faces.au[rows]],
                    list(faces.expression[rows]),
                    generator=[SEED + at + row for row in range(len(faces.au[rows]))],
                    num_inference_steps=easel.maker.num_inference_steps,
                    guidance_scale=scale,
                    guidance_start=start,
                    guidance_end=end,
                    output_type="array",
                    batch_size=BATCH,
                ).images
            )
        return {"gray": np.concatenate(gray), "cpu_s": np.array(time.process_time() - begun)}

    drawn = easel.kept("guidance", make, setting=setting, n=len(faces))
    made, real = (easel.read(gray, "guide") for gray in (drawn["gray"], faces.gray))
    label = faces.expression.argmax(axis=1)
    hits = evaluation.agreement(label, made.expression)
    columns = [
        column
        for column, unit in enumerate(ACTION_UNITS)
        if unit.number not in UNRELIABLE and np.isfinite(made.au[:, column]).all()
    ]
    known = np.isfinite(faces.au).all(axis=1, where=np.isfinite(made.au))
    asked, seen = faces.au[known][:, columns].ravel(), made.au[known][:, columns].ravel()
    return {
        "scale": scale,
        "start": start,
        "end": end,
        "distance": asdict(evaluation.frechet_interval(made.feature, real.feature)),
        "kernel": evaluation.kernel_distance(made.feature, real.feature),
        "agreement": asdict(evaluation.figure(hits.astype(float))),
        "au_slope": float(np.polyfit(asked, seen, 1)[0]),
        "cpu_s_per_face": float(drawn["cpu_s"]) / len(faces),
    }


def some(faces: TrainingFaces, n: int) -> TrainingFaces:
    """Return ``n`` faces in a fixed random order; all of them if ``n`` is 0."""
    rows = np.random.default_rng(SEED).permutation(len(faces))[: n or len(faces)]
    return faces.take(rows)


def chosen(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Choose the setting with the best agreement among the most natural.

    Natural: the distance is inside the interval of the smallest distance.
    """
    best = min(rows, key=lambda row: row["distance"]["value"])
    natural = [row for row in rows if row["distance"]["value"] <= best["distance"]["high"]]
    return max(natural, key=lambda row: (row["agreement"]["value"], -row["distance"]["value"]))


def page(result: dict[str, Any]) -> str:
    """Write the Markdown of the sweep."""
    pick = result["chosen"]
    lines = [
        "# Guidance, chosen on set-aside training faces",
        "",
        f"`{result['model']}`, {result['date']}, commit {result['commit']}, {result['hardware']}. "
        f"{result['n']} faces, asked as {result['n']} set-aside training faces look; the network "
        f"did not learn from those. Read by `{result['guide']}`; the judge has no part in the "
        "choice. Written by `python -m tests.benchmarks.guidance`.",
        "",
        "| scale | steps guided | Fréchet distance | 95 % interval | KID | guide agrees | "
        "slope of AUs | CPU s per face |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        setting = (row["scale"], row["start"], row["end"])
        mark = " **default**" if setting == DEFAULT else ""
        mark += " (by the rule)" if row == pick else ""
        distance = row["distance"]
        lines.append(
            f"| {row['scale']:g}{mark} | {row['start']:.0%} to {row['end']:.0%} "
            f"| {distance['value']:.2f} | {distance['low']:.2f} to {distance['high']:.2f} "
            f"| {row['kernel']:.4f} | {row['agreement']['value']:.3f} | {row['au_slope']:.2f} "
            f"| {row['cpu_s_per_face']:.2f} |"
        )
    lines += [
        "",
        "The rule: the best agreement among the settings whose distance is inside the interval of "
        "the smallest. KID is the unbiased squared MMD with a cubic kernel; the Fréchet distance "
        "grows as faces become fewer, so it compares only within this table.",
        *_doubts(result),
    ]
    return "\n".join(lines) + "\n"


def _doubts(result: dict[str, Any]) -> list[str]:
    """Say so if the interval is too wide for the rule to exclude anything."""
    best = min(result["rows"], key=lambda row: row["distance"]["value"])
    if best["distance"]["high"] < 1.5 * best["distance"]["value"]:
        return []
    return [
        "",
        "With so few faces the interval of the smallest distance is wide, and the rule excludes "
        "almost nothing. The default was not changed by it; more faces (`--faces 0`) are needed.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.guidance")
    add = parser.add_argument
    add("--cache", type=Path, default=Path(".cache/synthesis"), help="where parts are kept")
    add("--faces-cache", type=Path, default=Path(".cache/ferplus"), help="as for the raters")
    add("--out", type=Path, default=RESULTS)
    add("--faces", type=int, default=0, help="set-aside faces, chosen at random; 0: all")
    options = parser.parse_args()
    shared = Path(os.environ.get("RISORIUS_SHARED", Path(__file__).parents[3] / "shared"))
    real, _, _ = real_faces(shared / "data", options.faces_cache, kept=options.cache)
    faces = some(FaceDataset(real, balance=0.0).held_out, options.faces)
    easel = Easel(FaceGenerator(), {"guide": raters.load("guide")}, options.cache)
    rows = [measured(easel, faces, setting) for setting in SETTINGS]
    pick = chosen(rows)
    result = {
        "model": easel.maker.model,
        "guide": easel.raters["guide"].rater_id,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "n": len(faces),
        "chosen": pick,
        "rows": rows,
    }
    atomic.write_text(options.out / "guidance.json", json.dumps(result, indent=1) + "\n")
    text = page(result)
    atomic.write_text(options.out / "guidance.md", text)
    print(text)
    if (pick["scale"], pick["start"], pick["end"]) != DEFAULT:
        print("The defaults in synthesis/request.py are others than the rule's")


if __name__ == "__main__":
    main()
