"""What labels can be believed: ``python -m tests.benchmarks.labels``.

Four parts on FER+, each beside its baselines in the same run: ``soft`` (soft labels from few
votes), ``noise`` (wrong labels), ``open`` (faces of no known class), ``scale`` (time). Everything
is chosen on the training file and measured on the validation file without near copies of the
former. Writes ``results/labels.json`` and ``results/labels.md``; parts that are not run keep
their last results, with their own date; misses stay in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from annotation.aggregation.dirichlet_mixture import default_prior
from tests.benchmarks import (
    labels_data,
    labels_noise,
    labels_open,
    labels_page,
    labels_scale,
    labels_soft,
)
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic

RESULTS = Path(__file__).parent / "results"
PARTS = ("soft", "noise", "open", "scale")
OPEN_ROWS = 8000
"""Closed training faces of the open part; all of them take an hour."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.labels", description=__doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--rater", default="default", help="the machine rater whose answers are used on valid")
    add("--rows", type=int, help="use so many training pictures, for a quicker look")
    add("--limit", type=int, help="read so many rows of the files, to see whether it runs")
    add("--large", action="store_true", help="14 million votes, 100 passes of Dawid-Skene")
    add("--cache", type=Path, default=Path(".cache/labels"))
    add(
        "--aligned",
        type=Path,
        help="cache of annotation.raters.training.train, for aligned features",
    )
    add("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = Path(__file__).parents[2]
    shared = Path(os.environ.get("RISORIUS_SHARED", root / ".." / "shared"))
    if not (shared / "data" / "ferplus-valid.parquet").is_file():
        parser.error("FER+ is not here; set RISORIUS_SHARED to the folder that holds data/")
    options.cache.mkdir(parents=True, exist_ok=True)
    train, valid = labels_data.read(
        shared / "data", options.cache, limit=options.limit, aligned=options.aligned
    )
    rater, answers, found = labels_data.machine(valid, options.cache, rater=options.rater)
    path = options.out / "labels.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for part in options.parts:
        start = time.process_time()
        if part == "soft":
            aside = labels_data.set_aside(
                shared / "data",
                options.cache,
                aligned=options.aligned or options.cache / "aligned",
                rater=options.rater,
            )
            made = labels_soft.measured(train, valid, answers, aside)
        elif part == "noise":
            made = labels_noise.measured(train, valid, answers, rows=options.rows)
        elif part == "open":
            rows = options.rows or OPEN_ROWS
            made = labels_open.measured(train, valid, answers, found, rows=rows)
        else:
            seen = labels_data.rater_features(
                shared / "data",
                options.cache,
                aligned=options.aligned or options.cache / "aligned",
                rater=options.rater,
            )
            made = labels_scale.measured(train, seen, large=options.large, rows=options.rows)
        results[part] = made | {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": revision(),
            "hardware": hardware(),
            "features": "blendshapes, and gradients of "
            + ("aligned faces" if options.aligned else "the pictures as they are"),
            "rater": rater,
            "prior": default_prior().version,
            "train": len(train) if options.rows is None else min(options.rows, len(train)),
            "valid": len(valid),
            "cpu_s_of_the_part": round(time.process_time() - start),
        }
        atomic.write_text(path, json.dumps(results, indent=1) + "\n")
    text = labels_page.page(results)
    atomic.write_text(options.out / "labels.md", text)
    print(text)


if __name__ == "__main__":
    main()
