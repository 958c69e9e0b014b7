"""Benchmark of the machine raters: ``python -m tests.benchmarks.rater``.

Every image of the FER+ validation file passes the pipeline's face finder, its alignment and the
rater in ONNX Runtime. Writes ``results/rater.json`` and ``results/rater.md``; missed targets stay
in the table, and the figures of the weights measured before stand beside the new ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.progress import track

from annotation import raters
from annotation.raters.onnx_rater import SHIPPED, OnnxRater, weights_of
from annotation.raters.training import metrics, targets
from tests.benchmarks.ferplus import crops_of, valid, votes_and_proxies
from tests.benchmarks.rater_page import RESAMPLES, SPEED_BATCH, SPEED_ROUNDS, gallery, page
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

RESULTS = Path(__file__).parent / "results"


def with_interval(
    name: str, of: Callable[[np.ndarray], dict[str, float]], n: int
) -> dict[str, dict[str, float]]:
    """Bootstrap the 2.5 and 97.5 percentiles of each figure."""
    rng = np.random.default_rng(0)
    whole = of(np.arange(n))
    draws = [of(rng.integers(0, n, n)) for _ in track(range(RESAMPLES), f"resampling {name}")]
    return {
        key: {
            "value": value,
            "low": float(np.quantile([draw[key] for draw in draws], 0.025)),
            "high": float(np.quantile([draw[key] for draw in draws], 0.975)),
        }
        for key, value in whole.items()
    }


def per_class(answers: np.ndarray, votes: np.ndarray) -> list[dict[str, Any]]:
    """Measure each expression, with bootstrap intervals of recall and F1."""
    rows, label = metrics.truth(votes)
    label, guess = label[rows], answers[rows, : len(EXPRESSIONS)].argmax(axis=1)
    rng = np.random.default_rng(0)
    draws = [
        metrics.confusion(label[drawn], guess[drawn])
        for drawn in (rng.integers(0, len(label), len(label)) for _ in range(RESAMPLES))
    ]
    intervals = {
        name: np.nanquantile([of(draw) for draw in draws], [0.025, 0.975], axis=0)
        for name, of in (("recall", metrics.recall), ("f1", metrics.f1))
    }
    table = metrics.confusion(label, guess)
    scores, mistakes = metrics.f1(table), table - np.diag(np.diag(table))
    shares = votes / votes.sum(axis=1, keepdims=True)
    return [
        {
            "expression": expression,
            "faces": int(table[index].sum()),
            "recall": float(table[index, index] / max(1, table[index].sum())),
            "precision": float(table[index, index] / max(1, table[:, index].sum())),
            "f1": float(scores[index]),
            **{f"{name}_interval": ends[:, index].tolist() for name, ends in intervals.items()},
            "mean_share_votes": float(shares[:, index].mean()),
            "mean_share_rater": float(answers[:, index].mean()),
            "taken_for": EXPRESSIONS[int(mistakes[index].argmax())],
        }
        for index, expression in enumerate(EXPRESSIONS)
    ]  # fmt: skip


def speed(rater: OnnxRater, crops: np.ndarray) -> dict[str, float]:
    """Measure faces per second of the rater and of a ResNet-18, in turns.

    Medians, because other work on the machine only ever adds time.
    """
    batch = np.ascontiguousarray(crops[:SPEED_BATCH])
    with tempfile.TemporaryDirectory() as folder:
        session = _resnet18(Path(folder) / "resnet18.onnx", threads=2)
        blob = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        ours, theirs = [], []
        for _ in range(SPEED_ROUNDS):
            ours.append(_seconds(lambda: rater.rate(batch)))
            theirs.append(_seconds(lambda: session.run(None, {"image": blob})))
    rate, rival = (SPEED_BATCH / float(np.median(taken)) for taken in (ours, theirs))
    return {
        "faces_per_s": rate,
        "faces_per_s_best": SPEED_BATCH / min(ours),
        "resnet18_per_s": rival,
        "ratio": rate / rival,
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resnet18(path: Path, *, threads: int) -> Any:
    """Make a ResNet-18 (He et al., 2016) at 224 px with random weights."""
    import onnxruntime
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int, out: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(width, out, 3, stride, 1), nn.ReLU(), nn.Conv2d(out, out, 3, 1, 1)
            )
            same = width == out and stride == 1
            self.skip = nn.Identity() if same else nn.Conv2d(width, out, 1, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x) + self.skip(x))

    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1),
              (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]  # fmt: skip
    network = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        *(Block(*row) for row in widths),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 8),
    ).eval()  # fmt: skip
    torch.onnx.export(
        network, (torch.zeros(SPEED_BATCH, 3, 224, 224),), str(path),
        input_names=["image"], dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def vote_entropy(parquet: Path) -> float:
    """Return the mean entropy of the votes of a file, in nats."""
    votes = pl.read_parquet(parquet, columns=[*EXPRESSIONS, "unknown", "NF"]).to_numpy()
    return float(metrics.entropy(votes / votes.sum(axis=1, keepdims=True)).mean())


def measured(name: str, parquet: Path, *, crops: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Measure one rater; return its entry of the JSON."""
    rater = raters.load(name, threads=2)
    assert isinstance(rater, OnnxRater)
    votes, units, proxies = votes_and_proxies(parquet)
    ratings = rater.rate(crops)
    answers = ratings.answers
    scale = {int(unit): top for unit, top in rater.card["au_scale"].items()}
    wanted = targets.rescale(units, proxies, scale)
    columns = [[unit.number for unit in ACTION_UNITS].index(unit) for unit in scale]
    au = ratings.au[:, columns]

    def of(rows: np.ndarray) -> dict[str, float]:
        by_unit = metrics.correlations(list(scale), au[rows], wanted[rows])
        figures = metrics.figures(answers[rows], votes[rows], power=ratings.plurality_power)
        return {**figures, "au": metrics.mean_reliable(by_unit)}

    rows, label = metrics.truth(votes)
    closed = ratings.plurality[rows]
    right = closed.argmax(axis=1) == label[rows]
    weights = weights_of(name)
    return {
        "rater_id": rater.rater_id,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "part": rater.card["trained_on"].get("part"),
        "learned_from": rater.card["trained_on"]["learned"],
        "architecture": rater.card["shape"].get("architecture"),
        "parameters": rater.card["parameters"],
        "provider": rater.provider,
        "images": len(votes),
        "images_of_the_protocol": int(rows.sum()),
        "images_of_the_official_protocol": int(metrics.official_truth(votes)[0].sum()),
        "face_found": float(found.mean()),
        "vote_entropy": vote_entropy(parquet),
        "vote_entropy_train": vote_entropy(parquet.with_name("ferplus-train.parquet")),
        "figures": with_interval(rater.rater_id, of, len(votes)),
        "classes": per_class(answers, votes),
        "calibration": metrics.calibration(closed.max(axis=1), right),
        "au": {str(k): v for k, v in metrics.correlations(list(scale), au, wanted).items()},
        "megabytes": weights.stat().st_size / 1e6,
        **speed(rater, crops),
    }


def summary_of(one: dict[str, Any]) -> dict[str, Any] | None:
    """Return the id and the figures of a rater that was measured before."""
    if not one:
        return None
    figures = {key: entry["value"] for key, entry in one["figures"].items()}
    speed = one.get("faces_per_s_median", one["faces_per_s"])
    classes = {row["expression"]: row["recall"] for row in one["classes"]}
    return {
        "rater_id": one["rater_id"],
        "figures": figures,
        "faces_per_s": speed,
        "recall": classes,
    }


def speed_again(path: Path) -> dict[str, dict[str, Any]]:
    """Measure the speeds again and keep the other results in ``path``."""
    results = json.loads(path.read_text())
    crops = np.random.default_rng(0).integers(0, 256, (SPEED_BATCH, 224, 224, 3), dtype=np.uint8)
    for name, one in results.items():
        rater = raters.load(name, threads=2)
        if not isinstance(rater, OnnxRater) or rater.rater_id != one["rater_id"]:
            raise SystemExit(f"{path.name} is about {one['rater_id']}: measure everything again")
        one.update(speed(rater, crops), date=time.strftime("%Y-%m-%d", time.gmtime()))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rater", description=__doc__)
    parser.add_argument(
        "--raters", nargs="+", default=list(SHIPPED), help="names or paths to .onnx files"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--gallery", type=Path, help="folder for pictures of its worst mistakes")
    parser.add_argument(
        "--speed-only", action="store_true", help="measure speed again, keep the other figures"
    )
    options = parser.parse_args()
    parquet = valid(parser)
    if options.speed_only:
        results = speed_again(options.out / "rater.json")
        atomic.write_text(options.out / "rater.json", json.dumps(results, indent=1) + "\n")
        atomic.write_text(options.out / "rater.md", page(results))
        return
    crops, found = crops_of(parquet)
    for name in options.raters if options.gallery else ():
        gallery(name, options.gallery, crops=crops, parquet=parquet)
    path = options.out / "rater.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    results = {name: measured(name, parquet, crops=crops, found=found) for name in options.raters}
    for name, one in results.items():
        # A rater that is measured again keeps the figures of the weights before it.
        old = before.get(name, {})
        same = old.get("rater_id") == one["rater_id"]
        one["before"] = old.get("before") if same else summary_of(old)
    atomic.write_text(options.out / "rater.json", json.dumps(results, indent=1) + "\n")
    text = page(results)
    atomic.write_text(options.out / "rater.md", text)
    print(text)


if __name__ == "__main__":
    main()
