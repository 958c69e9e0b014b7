"""Measure how fast releases are written and read.

Run ``python -m tests.benchmarks.releases``.

Pictures are FER+ (48 px PNG), one crop per face. Rivals run in turns; each counts with its best
round. Writes ``results/releases.json`` and ``results/releases.md``; misses stay in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from warehouse import releases
from warehouse.build_info import hardware, revision
from warehouse.ids import sha256_of
from warehouse.releases.schema import features
from warehouse.storage import atomic, media
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
BATCH = 64

WANTED = {
    "build": ("build ÷ `Dataset.from_generator` + `to_parquet`", 0.8),
    "read": ("`torch_dataset` ÷ `load_dataset` + `with_format('torch')`, two workers each", 1.5),
    "scan": ("`torch_dataset` ÷ raw Parquet scan + decode, one process each", 0.8),
}


def fill(home: Home, count: int) -> pl.DataFrame:
    """Crops in the media folder, and the rows that name them."""
    shared = Path(os.environ.get("RISORIUS_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    files = [shared / "data" / f"ferplus-{name}.parquet" for name in ("train", "valid")]
    if not all(file.is_file() for file in files):
        raise SystemExit("FER+ is not here; set RISORIUS_SHARED to the folder that holds data/")
    frame = pl.concat([pl.read_parquet(file, columns=["image", *EXPRESSIONS]) for file in files])
    frame = frame.head(count)
    crops = []
    for data in frame["image"]:
        digest = sha256_of([data])
        key = f"crops/{digest[:2]}/{digest[:32]}.png"
        path = media.path_of(home, key)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        crops.append(key)
    counts = frame.select(EXPRESSIONS).to_numpy().astype(np.float64)
    sums = counts.sum(axis=1, keepdims=True)
    soft = np.where(sums > 0, counts / np.maximum(sums, 1), 1 / len(EXPRESSIONS))
    return pl.DataFrame(_rows(crops, soft))


def _rows(crops: list[str], soft: np.ndarray) -> dict[str, Any]:
    n = len(crops)
    people = [f"p{number // 20:05d}" for number in range(n)]
    rng = np.random.default_rng(0)
    none = pl.Series([None] * n, dtype=pl.Float64)
    return {
        "face_id": [f"{who}-0000-{number}" for number, who in enumerate(people)],
        "video_id": [f"v{who}" for who in people],
        "track_id": [f"v{who}-0000" for who in people],
        "subject_id": people,
        "time_s": np.arange(n) / 5,
        "crop": crops,
        "soft_label": soft.tolist(),
        "open_set_share": np.zeros(n),
        "n_votes": [10] * n,
        "entropy": np.zeros(n),
        "au": rng.random((n, len(ACTION_UNITS))).round(3).tolist(),
        "valence": none, "arousal": none,
        "label_quality": rng.random(n).round(3),
        "is_label_issue": rng.random(n) < 0.05,
        "open_set_score": rng.random(n).round(3),
        "is_open_set": rng.random(n) < 0.02,
        "duplicate_of": pl.Series([None] * n, dtype=pl.String),
        "source": ["real"] * n,
        "licence": ["research-only"] * n,
    }  # fmt: skip


def votes_of(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        "face_id",
        rater_id=pl.lit("person-00000000"), rater_kind=pl.lit("person"),
        expressions=pl.lit(["neutral"]), confidence=pl.lit("sure"),
        valence=pl.lit(None, dtype=pl.Float64), arousal=pl.lit(None, dtype=pl.Float64),
        lead_time_s=pl.lit(2.0), was_cancelled=pl.lit(False),
        updated_at=pl.lit(0).cast(pl.Datetime("us", "UTC")),
    )  # fmt: skip


def build(home: Home, rows: pl.DataFrame) -> Path:
    shutil.rmtree(home.releases, ignore_errors=True)
    return releases.build(
        home, name="faces", rows=rows, votes=votes_of(rows), facts={}, settings={},
        code_version="benchmark",
    ).path  # fmt: skip


def written_by_datasets(home: Home, rows: pl.DataFrame, folder: Path) -> Path:
    """Write the same columns and pictures with ``datasets`` alone.

    There are no splits by person, no votes, card, report or checksums.
    """
    import datasets

    kinds = features()
    plain = [name for name in kinds if name not in ("image", "expression")]

    def examples() -> Iterator[dict[str, Any]]:
        for row in rows.iter_rows(named=True):
            data = media.path_of(home, row["crop"]).read_bytes()
            top = int(np.argmax(row["soft_label"]))
            example = {name: row[name] for name in plain}
            yield {**example, "image": {"bytes": data, "path": None}, "expression": top}

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = datasets.Dataset.from_generator(
        examples, features=kinds, cache_dir=str(folder / "cache")
    )
    made.to_parquet(str(folder / "train.parquet"))
    return folder / "train.parquet"


def fast(home: Home, *, workers: int) -> Iterable[Any]:
    return releases.torch_dataset("faces", home=home, batch_size=BATCH).loader(workers=workers)


def plain(home: Home, *, workers: int) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    columns = ["image", "soft_label", "label_quality", "au"]
    data = releases.load("faces", home=home)["train"].select_columns(columns)
    return DataLoader(
        data.with_format("torch"), batch_size=BATCH, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0, prefetch_factor=4 if workers else None,
    )  # fmt: skip


def epoch(loader: Iterable[Any]) -> int:
    return sum(len(batch["image"]) for batch in loader)


def scan_and_decode(home: Home) -> int:
    """Read pages, decode pictures one batch at a time; return the count."""
    import cv2
    import pyarrow.parquet as pq

    columns = ["image", "soft_label", "label_quality", "au"]
    done = 0
    for file in sorted(home.releases.glob("faces/v*/data/train-*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH, columns=columns):
            pictures = [
                cv2.imdecode(np.frombuffer(data.as_buffer(), np.uint8), cv2.IMREAD_COLOR_RGB)
                for data in batch.column("image").field("bytes")
            ]
            done += len(np.stack(pictures))
    return done


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def memory_mb(home: Home, rows: pl.DataFrame, folder: Path) -> dict[str, float]:
    """Return peak resident memory of a process, before and after a build."""
    rows.write_parquet(folder / "rows.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.releases",
         "--only-build", str(home.root), "--rows", str(folder / "rows.parquet")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = map(float, done.stdout.split()[-2:])
    return {"before": before, "after": after}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(count: int, folder: Path) -> dict[str, Any]:
    home = Home.at(folder / "home")
    rows = fill(home, count)
    took: dict[str, list[float]] = {}

    def turn(name: str, call: Callable[[], object]) -> None:
        took.setdefault(name, []).append(seconds(call))

    for _ in range(ROUNDS):
        turn("build", lambda: build(home, rows))
        turn("datasets", lambda: written_by_datasets(home, rows, folder / "rival"))
    # Loaders live on from epoch to epoch, as in a training; the first one starts their workers.
    loaders = {
        "torch_dataset_1": fast(home, workers=0),
        "torch_dataset_2": fast(home, workers=2),
        "load_dataset_2": plain(home, workers=2),
    }
    train = max(epoch(loader) for loader in loaders.values())
    for _ in range(ROUNDS):
        turn("scan_1", lambda: scan_and_decode(home))
        for name, loader in loaders.items():
            turn(name, partial(epoch, loader))
    best = {name: min(times) for name, times in took.items()}
    stored = sum(file.stat().st_size for file in home.releases.glob("faces/v*/*/*.parquet"))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 1),
        "faces": rows.height,
        "faces_of_train": train,
        "megabytes": stored / 1e6,
        "rounds": took,
        "ratios": {
            "build": best["datasets"] / best["build"],
            "read": best["load_dataset_2"] / best["torch_dataset_2"],
            "scan": best["scan_1"] / best["torch_dataset_1"],
        },
        "faces_per_s": {
            "build": rows.height / best["build"],
            "datasets": rows.height / best["datasets"],
            **{
                name: train / best[name]
                for name in ("torch_dataset_1", "scan_1", "torch_dataset_2", "load_dataset_2")
            },
        },
        "memory_mb": {
            str(n): memory_mb(home, rows.head(n), folder) for n in (max(count // 3, 1), count)
        },
    }


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Releases: writing and reading",
        "",
        f"{result['date']}, commit {result['commit']}, {result['hardware']}, load average "
        f"{result['load_average']} (the machine was shared). Written by "
        "`python -m tests.benchmarks.releases`.",
        "",
        f"{result['faces']} FER+ pictures of 48 px, {result['megabytes']:.0f} MB of Parquet. Times "
        f"are the best of {ROUNDS} rounds taken in turns; a ratio above 1 means faster.",
        "",
        "| ratio | value | wanted | met |",
        "|---|---|---|---|",
    ]
    for key, (title, bound) in WANTED.items():
        value = result["ratios"][key]
        met = "yes" if value >= bound else "**no**"
        lines.append(f"| {title} | {value:.2f} | ≥ {bound:g} | {met} |")
    lines += ["", "| what | faces/s |", "|---|---|"]
    lines += [f"| {name} | {rate:.0f} |" for name, rate in result["faces_per_s"].items()]
    lines += [
        "",
        "The build also proves every crop by its hash, splits by person, and writes the votes, the "
        "card, the report and a SHA-256 of every file; `datasets` writes the faces alone.",
        "",
        "| faces | peak memory before the build, MB | after it, MB | pictures, MB |",
        "|---|---|---|---|",
    ]
    for n, peak in result["memory_mb"].items():
        share = int(n) / result["faces"] * result["megabytes"]
        lines.append(f"| {n} | {peak['before']:.0f} | {peak['after']:.0f} | {share:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.releases")
    parser.add_argument("--faces", type=int, default=30_000)
    parser.add_argument("--only-build", type=Path, help="build there and print the peak memory")
    parser.add_argument("--rows", type=Path, help="what to build there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if options.only_build:
        import datasets  # noqa: F401
        import duckdb  # noqa: F401

        rows = pl.read_parquet(options.rows)
        before = _peak()
        build(Home.at(options.only_build), rows)
        print(before, _peak())
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measured(options.faces, Path(folder))
    atomic.write_text(options.out / "releases.json", json.dumps(result, indent=1) + "\n")
    atomic.write_text(options.out / "releases.md", page(result))
    print(page(result))


if __name__ == "__main__":
    main()
