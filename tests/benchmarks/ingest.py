"""Benchmark ingestion: ``python -m tests.benchmarks.ingest``.

Every rival runs in the same process, one after the other, on the same clips. Times are ratios,
in wall time and in CPU time; the second holds on a busy machine too. Writes
``results/ingest.json``, ``results/ingest.md`` and two plots of numbers; misses stay in.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import ingest_cuts, ingest_gate, ingest_scale, ingest_speed
from tests.benchmarks.ingest_page import page
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic

RESULTS = Path(__file__).parent / "results"
SHARED = Path(os.environ.get("RISORIUS_SHARED", Path(__file__).parents[2] / ".." / "shared"))


def parts(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Any]]:
    quick = options.quick
    return {
        "speed": lambda: ingest_speed.measure(
            folder, quick=quick, shared=SHARED, python=options.rivals_python
        ),
        "cuts": lambda: ingest_cuts.measure(folder, seeds=2 if quick else 4),
        "gate": lambda: ingest_gate.measure(
            folder, plot=options.out / "ingest_gate.png", shared=SHARED
        ),
        "batch": lambda: ingest_scale.per_video(folder, quick=quick),
        "memory": lambda: ingest_scale.memory(folder, quick=quick),
        "long": lambda: ingest_scale.long_video(
            folder, minutes=3 if quick else 30, plot=options.out / "ingest_long.png"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ingest", description=__doc__)
    names = ("speed", "cuts", "gate", "batch", "memory", "long")
    parser.add_argument("--parts", nargs="+", default=list(names), choices=names)
    parser.add_argument("--quick", action="store_true", help="smaller everything, for a look")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--rivals-python", type=Path, help="a Python that has mediapipe and facenet-pytorch"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "ingest.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            load = os.getloadavg()[0]
            found = parts(options, Path(folder))[name]()
        results[name] = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": revision(),
            "hardware": hardware(),
            "load": round(load, 1),
            "quick": options.quick,
            **found,
        }
        # After each part, so that what was measured stays measured.
        atomic.write_text(path, json.dumps(results, indent=1) + "\n")
        atomic.write_text(options.out / "ingest.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
