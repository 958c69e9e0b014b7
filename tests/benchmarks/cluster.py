"""Measure cost and fault tolerance of a cluster.

Run ``python -m tests.benchmarks.cluster``.

Two Ray nodes of this machine against one with as many cores, and against local processes, over
items of known length and over real videos. Then workers are killed amid a batch, one after the
other. Writes ``results/cluster.json`` and ``results/cluster.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.execution import map_items
from pipeline.ingest.register import FaceOptions, find_faces, register
from tests.media_files import coded, package_file
from tests.pipeline.ray_cluster import Cluster, cluster
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home

RESULTS = Path(__file__).parent / "results"
ITEM_S = 0.2
OVERHEAD_MS = 150.0
ITEMS_PER_LOSS = 40


def nap(item: int) -> int:
    time.sleep(ITEM_S)
    return item


def mark(item: int, *, folder: Path) -> int:
    (folder / f"pid-{os.getpid()}").touch()
    time.sleep(ITEM_S)
    (folder / f"try-{item}-{time.monotonic_ns()}").touch()
    return item


def make_videos(folder: Path, count: int) -> None:
    """Write half-second clips of a photograph with faces.

    Each clip is shifted, so that no two are equal.
    """
    import cv2

    photo = cv2.imread(str(package_file("insightface", "data/images/t1.jpg")))
    assert photo is not None
    small = cv2.resize(photo[:, :, ::-1], (640, 448))
    folder.mkdir(parents=True)
    for number in range(count):
        moved = np.roll(small, number, axis=1)
        coded(folder / f"{number:03d}.mp4", [moved] * 5, fps=10)


def overhead(kinds: dict[str, tuple[int, ...]], *, items: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds per item beyond its own length, per worker.

    The best of the rounds counts.
    """
    found: dict[str, list[float]] = {name: [] for name in ("local", *kinds)}

    def measure(name: str, engine: str) -> None:
        list(map_items(nap, range(2), engine=engine, workers=2))  # import everything once
        start, busy = time.perf_counter(), time.process_time()
        moments = [
            time.perf_counter() - start
            for _ in map_items(nap, range(items), engine=engine, workers=2)
        ]
        # From the second answer on: the cost of starting workers is reported apart.
        steady = (moments[-1] - moments[1]) / (len(moments) - 2) * 2 - ITEM_S
        found[name].append(1000 * steady)
        found.setdefault(f"{name} driver", []).append(1000 * (time.process_time() - busy) / items)
        found.setdefault(f"{name} start", []).append(1000 * (moments[0] - ITEM_S))

    for _ in range(rounds):
        measure("local", "local")
        for name, cpus in kinds.items():
            with_cluster(cpus, partial(measure, name, "ray"))
    return {name: min(values) for name, values in found.items()}


def videos(kinds: dict[str, tuple[int, ...]], *, count: int) -> dict[str, Any]:
    """Return seconds between finished videos, and whether rows are equal.

    Rows are compared between the engines.
    """
    place = Path(tempfile.mkdtemp(prefix="rsr-cl-", dir="/tmp"))
    make_videos(place / "clips", count)
    seconds: dict[str, float] = {}
    rows = {}

    def measure(name: str, engine: str) -> None:
        home = Home.at(place / name.replace(" ", "-"))
        home.inbox.mkdir(parents=True)
        shutil.copytree(place / "clips", home.inbox / "batch")
        register(home, "batch", engine=engine, workers=2)
        moments: list[float] = []

        def say(*_: object) -> None:
            moments.append(time.perf_counter())

        find_faces(home, "batch", FaceOptions(), engine=engine, workers=2, progress=say)
        # Each worker's first video carries the start of the worker and of its models.
        seconds[name] = (moments[-1] - moments[1]) / (len(moments) - 2)
        frame = tables.read(home, "faces").drop("crop", "context").sort("face_id")
        rows[name] = (frame.height, frame.hash_rows().sum())

    try:
        measure("local", "local")
        for name, cpus in kinds.items():
            with_cluster(cpus, partial(measure, name, "ray"))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {
        "videos": count,
        "seconds": seconds,
        "faces": rows["local"][0],
        "same_rows": len(set(rows.values())) == 1,
    }


def losses(count: int, *, seed: int = 0) -> dict[str, Any]:
    """Run a batch and kill ``count`` busy workers, one after the other."""
    folder = Path(tempfile.mkdtemp(prefix="rsr-cl-", dir="/tmp"))
    chance = random.Random(seed)
    killed: list[int] = []
    done = threading.Event()

    def strike(nodes: Cluster) -> None:
        while len(killed) < count and not done.is_set():
            time.sleep(chance.uniform(0.1, 2 * ITEM_S))
            alive = {one.pid for node in nodes.alive() for one in nodes.workers(node)}
            at_work = {int(path.name[4:]) for path in folder.glob("pid-*")} & alive
            at_work -= set(killed)
            if at_work:
                victim = chance.choice(sorted(at_work))
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    outcomes: list[tuple[int, Any]] = []

    def batch(nodes: Cluster) -> None:
        striking = threading.Thread(target=strike, args=(nodes,))
        striking.start()
        items, work = range(count * ITEMS_PER_LOSS), partial(mark, folder=folder)
        outcomes.extend(map_items(work, items, engine="ray", workers=2))
        done.set()
        striking.join()

    try:
        with_cluster((1, 1), batch, hand_over=True)
        tries = len(list(folder.glob("try-*")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    asked = [item for item, _ in outcomes]
    return {
        "killed": len(killed),
        "items": len(outcomes),
        "failed": sum(isinstance(outcome, Exception) for _, outcome in outcomes),
        "lost": len(set(range(len(outcomes))) - set(asked)),
        "doubled": len(asked) - len(set(asked)),
        "work_done_twice": tries - len(outcomes),
    }


def with_cluster(
    cpus: tuple[int, ...], call: Callable[..., None], *, hand_over: bool = False
) -> None:
    import ray

    with cluster(*cpus) as nodes:
        os.environ["RAY_ADDRESS"] = nodes.address
        try:
            call(nodes) if hand_over else call()
        finally:
            ray.shutdown()


def page(found: dict[str, Any]) -> str:
    """The Markdown of the numbers."""
    cost, real, lost = found["overhead_ms"], found["videos"], found["losses"]
    per = real["seconds"]
    extra = cost["two nodes"] - cost["one node"]
    whole = lost["failed"] == lost["lost"] == lost["doubled"] == 0
    lines = [
        "# A Ray cluster",
        "",
        f"{found['date']}, commit {found['commit']}, {found['hardware']}; {found['load']}. "
        "Written by `python -m tests.benchmarks.cluster`.",
        "",
        "| figure | value | wanted | met |",
        "|---|---|---|---|",
        f"| two nodes of one machine against one: overhead per item, ms | {extra:.1f} "
        f"| < {OVERHEAD_MS:g} | {'yes' if extra < OVERHEAD_MS else '**no**'} |",
        f"| the same, over {real['videos']} real videos, ms each "
        f"| {1000 * (per['two nodes'] - per['one node']):.0f} | < {OVERHEAD_MS:g} "
        f"| {'yes' if per['two nodes'] - per['one node'] < OVERHEAD_MS / 1000 else '**no**'} |",
        f"| {lost['killed']} workers killed amid a batch of {lost['items']} items: "
        f"failed, lost, doubled | {lost['failed']}, {lost['lost']}, {lost['doubled']} "
        f"| 0, 0, 0 | {'yes' if whole else '**no**'} |",
        f"| the same faces from every engine | {real['same_rows']} | True "
        f"| {'yes' if real['same_rows'] else '**no**'} |",
        "",
        f"| engine, two workers | ms beyond an item of {1000 * ITEM_S:g} ms "
        "| ms until the first worker works | seconds per video |",
        "|---|---|---|---|",
        *(
            f"| {name} | {cost[name]:.1f} | {cost[f'{name} start']:.0f} | {per[name]:.2f} |"
            for name in real["seconds"]
        ),
        "",
        f"An item whose worker died is done again: {lost['work_done_twice']} of them had been "
        "finished and were written twice, to the same place.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cluster", description=__doc__)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--losses", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    kinds = {"one node": (2,), "two nodes": (1, 1)}
    load = os.getloadavg()[0]
    cost = overhead(kinds, items=options.items, rounds=options.rounds)
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "load": f"load {load:.0f} at the start",
        "overhead_ms": cost,
        "driver_cpu_ms": cost["two nodes driver"],
        "videos": videos(kinds, count=options.videos),
        "losses": losses(options.losses),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    atomic.write_text(options.out / "cluster.json", json.dumps(found, indent=1) + "\n")
    atomic.write_text(options.out / "cluster.md", page(found))
    print(page(found))


if __name__ == "__main__":
    main()
