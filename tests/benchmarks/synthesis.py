"""Benchmark synthetic faces: requests shown, and training on them.

``python -m tests.benchmarks.synthesis --cache DIR`` writes ``results/synthesis.{json,md}``. A judge
that had no part in making or steering the faces reads them. Finished parts lie in the cache, and a
run that was stopped goes on there. Misses stay in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from annotation import raters
from pipeline.synthesis.service import FaceGenerator
from tests.benchmarks import synthesis_draws as draws
from tests.benchmarks import synthesis_steps
from tests.benchmarks import synthesis_trainer as trainer
from tests.benchmarks.synthesis_draws import Easel
from tests.benchmarks.synthesis_faces import real_faces
from tests.benchmarks.synthesis_figures import (
    annotating,
    ceilings,
    closeness,
    control,
    expression,
    speed,
)
from tests.benchmarks.synthesis_page import page
from warehouse.build_info import hardware, revision
from warehouse.ids import file_sha256
from warehouse.storage import atomic

RESULTS = Path(__file__).parent / "results"


def measured(options: argparse.Namespace, shared: Path) -> dict[str, Any]:
    """Everything, as it goes into the JSON."""
    folder, cache = shared / "data", options.cache
    real, test, label = real_faces(folder, options.faces_cache, kept=cache)
    names = {"judge": options.judge, "guide": "default"}
    if options.judge == "default":
        names.pop("guide")
    easel = Easel(
        FaceGenerator(name=options.synthesizer),
        {role: raters.load(name) for role, name in names.items()},
        cache,
    )
    start = time.perf_counter()
    result: dict[str, Any] = {
        "model": easel.maker.model,
        "weights": file_sha256(
            str(easel.maker.folder / "unet" / "diffusion_pytorch_model.safetensors")
        ),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "judge": easel.raters["judge"].rater_id,
        "guide": easel.raters["guide"].rater_id if "guide" in easel.raters else None,
        "options": {
            key: value for key, value in vars(options).items() if isinstance(value, int | bool)
        },
        **speed(easel),
        "ceilings": ceilings(easel, test, label),
        "annotators": annotating(easel, test, label, options.annotator),
    }
    result |= control(easel, real, options)
    if "guide" in easel.raters:
        result |= expression(easel, result["ceilings"], each=options.each)
    made = draws.pool(easel, real.expression, real.au, n=options.pool)["gray"]
    result |= {"likeness": closeness(easel, made, real, test)}
    result |= trainer.arms(easel, real, test, label, options)
    if options.fifty:
        result |= {"steps": synthesis_steps.compared(easel, real, test)}
    return {**result, "minutes": round((time.perf_counter() - start) / 60, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.synthesis")
    add = parser.add_argument
    add("--synthesizer", default="default", help="default or a saved pipeline's folder")
    add("--judge", default="judge", help="a rater that is not the guide")
    add("--annotator", type=Path, help="folder of a trained one, to compare with the raters")
    add("--cache", type=Path, default=Path(".cache/synthesis"), help="where parts are kept")
    add("--faces-cache", type=Path, default=Path(".cache/ferplus"), help="as for the raters")
    add("--out", type=Path, default=RESULTS)
    add("--seeds", type=int, default=64, help="of every sweep")
    add("--seeds-labelled", type=int, default=16)
    add("--pairs", type=int, default=256)
    add("--each", type=int, default=32, help="faces per expression, without and with guidance")
    add("--pool", type=int, default=3000, help="faces asked as real ones are labelled; 1x")
    add("--five", action="store_true", help="train on five times as many as well")
    add("--fifty", action="store_true", help="compare ten steps with fifty, on fewer faces")
    add("--trainings", type=int, default=3)
    add("--trainer-steps", type=int, default=500)
    options = parser.parse_args()
    root = Path(__file__).parents[2]
    shared = Path(os.environ.get("RISORIUS_SHARED", root / ".." / "shared"))
    if not (shared / "data" / "ferplus-train.parquet").is_file():
        parser.error("FER+ is not here; set RISORIUS_SHARED to the folder that holds data/")
    result = measured(options, shared)
    atomic.write_text(options.out / "synthesis.json", json.dumps(result, indent=1) + "\n")
    text = page(result)
    atomic.write_text(options.out / "synthesis.md", text)
    print(text)


if __name__ == "__main__":
    main()
