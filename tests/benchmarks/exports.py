"""Measure exports against copying the same bytes.

Run ``python -m tests.benchmarks.exports``.

Faces are FER+ (48 px PNG) with a box each. Clips have 16 frames of 224 px, 3.2 s at 5 a second.
Each layout is written in a process of its own, and its folder is copied after it, in turns; the
best round counts. Processor seconds are there because the machine may be shared. Writes
``results/exports.json`` and ``results/exports.md``; misses stay in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from tests.benchmarks.releases import RESULTS, _peak, fill, votes_of
from tests.warehouse.layouts.conftest import geometry
from warehouse import releases
from warehouse.build_info import hardware, revision
from warehouse.releases.clips import CLIPS
from warehouse.storage import atomic, media
from warehouse.storage.home import Home

ROUNDS = 3
FRAMES = 16
FRAME_S = 0.2
WANTED_SHARE, WANTED_TIMES, WANTED_MB = 0.6, 10, 1024

CASES: dict[str, dict[str, Any]] = {
    "coco": {"layout": "boxes"},
    "raf": {"layout": "raf"},
    "dfew": {"layout": "dfew"},
}


def built(root: Path, *, faces: int, clips: int) -> Home:
    """A home with one version of faces and clips."""
    home = Home.at(root)
    rows = geometry(fill(home, faces))
    releases.build(
        home, name="faces", rows=rows, votes=votes_of(rows), facts={}, settings={},
        code_version="benchmark", sequences=_clips(home, rows, clips),
    )  # fmt: skip
    return home


def _clips(home: Home, rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """Clips over consecutive faces; their frames are pictures of 224 px."""
    rng = np.random.default_rng(0)
    crops = []
    for key in rows["crop"].head(10 * FRAMES):
        small = cv2.imread(str(media.path_of(home, key)))
        large = cv2.resize(small, (224, 224), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(0, 6, large.shape, dtype=np.uint8)
        crops.append(media.store(home, "crops", cv2.add(large, noise)))
    made = []
    for number in range(min(count, rows.height)):
        face = rows.row(number, named=True)
        times = [face["time_s"] + place * FRAME_S for place in range(FRAMES)]
        start = number * FRAMES % len(crops)
        made.append(dict.fromkeys(CLIPS) | {
            "clip_id": f"{face['face_id']}-c0", "video_id": face["video_id"],
            "track_id": face["track_id"], "subject_id": face["subject_id"],
            "start_s": times[0], "end_s": times[-1] + FRAME_S, "onset_s": times[0],
            "apex_s": times[0], "offset_s": times[-1], "face_ids": [face["face_id"]] * FRAMES,
            "times": times, "crops": crops[start : start + FRAMES],
            "au": [face["au"]] * FRAMES, "source": "real", "licence": "research-only",
        })  # fmt: skip
    return pl.DataFrame(made, schema=CLIPS)


def one(home: Path, case: str, folder: Path) -> None:
    """Export, copy and print seconds, processor seconds and memory."""
    shutil.rmtree(folder, ignore_errors=True)
    start, busy = time.perf_counter(), time.process_time()
    counts = releases.export(home, name="faces", to=folder / "out", **CASES[case])
    export = (time.perf_counter() - start, time.process_time() - busy)
    peak = _peak()
    start, busy = time.perf_counter(), time.process_time()
    shutil.copytree(folder / "out", folder / "copy")
    copy = (time.perf_counter() - start, time.process_time() - busy)
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    print(json.dumps({
        "rows": sum(counts.values()), "files": len(files),
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
        "export_s": export[0], "export_cpu_s": export[1],
        "copy_s": copy[0], "copy_cpu_s": copy[1], "memory_mb": peak,
    }))  # fmt: skip
    shutil.rmtree(folder)


def measured(root: Path, *, faces: int, clips: int) -> dict[str, Any]:
    home = built(root / "home", faces=faces, clips=clips)
    rounds: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
    for _ in range(ROUNDS):
        for case in CASES:
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.exports", "--only", case,
                 "--home", str(home.root), "--folder", str(root / "work")],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            rounds[case].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 1),
        "rounds": rounds,
        "best": {case: _best(runs) for case, runs in rounds.items()},
    }


def _best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    low = {key: min(run[key] for run in runs) for key in runs[0]}
    return low | {
        "share": low["copy_s"] / low["export_s"],
        "memory_mb": max(run["memory_mb"] for run in runs),
        "times_real": low["rows"] * FRAMES * FRAME_S / low["export_s"],
    }


def page(result: dict[str, Any]) -> str:
    best = result["best"]
    lines = [
        "# Exports: speed against copying",
        "",
        f"{result['date']}, commit {result['commit']}, {result['hardware']}, load average "
        f"{result['load_average']} (the machine was shared). Written by "
        "`python -m tests.benchmarks.exports`.",
        "",
        f"Best of {ROUNDS} rounds in turns. Copying is `shutil.copytree` of the finished export on "
        "the same disk. `coco` copies the released bytes; `raf` decodes each PNG, scales it to "
        "100 px and encodes a JPEG, because the readers of its lists open `.jpg`; `dfew` encodes "
        "JPEG from PNG of 224 px.",
        "",
        "| layout | rows | files | MB | export, s | copy, s | export, CPU s | copy, CPU s "
        "| peak memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, low in best.items():
        lines.append(
            f"| `{case}` | {low['rows']} | {low['files']} | {low['megabytes']:.0f} | "
            f"{low['export_s']:.1f} | {low['copy_s']:.1f} | {low['export_cpu_s']:.1f} | "
            f"{low['copy_cpu_s']:.1f} | {low['memory_mb']:.0f} |"
        )
    lines += ["", "| measure | value | wanted | met |", "|---|---|---|---|"]
    found = [(f"speed of `{case}` ÷ copying", best[case]["share"], WANTED_SHARE, True)
             for case in ("coco", "raf")]  # fmt: skip
    found.append(("`dfew` frames, times real time", best["dfew"]["times_real"], WANTED_TIMES, True))
    memory = max(low["memory_mb"] for low in best.values())
    found.append(("peak memory, MB", memory, WANTED_MB, False))
    for title, value, bound, at_least in found:
        met = value >= bound if at_least else value <= bound
        sign = "≥" if at_least else "≤"
        lines.append(f"| {title} | {value:.2f} | {sign} {bound:g} | {'yes' if met else '**no**'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.exports")
    parser.add_argument("--faces", type=int, default=30_000)
    parser.add_argument("--clips", type=int, default=1_000)
    parser.add_argument("--only", choices=sorted(CASES), help="export this one and print times")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.only:
        one(options.home, options.only, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), faces=options.faces, clips=options.clips)
    atomic.write_text(options.out / "exports.json", json.dumps(result, indent=1) + "\n")
    atomic.write_text(options.out / "exports.md", page(result))
    print(page(result))


if __name__ == "__main__":
    main()
