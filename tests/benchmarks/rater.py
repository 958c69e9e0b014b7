"""How good the machine raters are: ``python -m tests.benchmarks.rater``.

Every image of the FER+ validation file takes the road of a real one: the pipeline's face finder,
its aligned crop, the rater in ONNX Runtime. Rater A is ``default``, judge B is ``judge``. Writes
``results/rater.json`` and ``results/rater.md``; misses stay in the table.
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

import numpy as np
import polars as pl
from rich.progress import track

from annotation import raters
from annotation.raters import data, measure, placing, targets
from annotation.raters.machine import SHIPPED, MachineRater, weights_of
from pipeline.faces import find
from warehouse import atomic
from warehouse.provenance import hardware, revision
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 1000
SPEED_BATCH = 64
SPEED_ROUNDS = 12

WANTED = {
    "accuracy": ("8-class accuracy", ">=", 0.78),
    "macro_f1": ("macro-F1", ">=", 0.55),
    "divergence": ("mean KL(votes ‖ rater), nats, all images, 10 answers", "<=", 0.45),
    "calibration_plurality": ("ECE, 15 bins, of `plurality` against the plurality", "<=", 0.03),
    "calibration_votes": ("ECE, 15 bins, of `expression` against shares of votes", "<=", 0.03),
    "au": ("AU proxies: mean Pearson r over reliable units", ">=", 0.65),
    "megabytes": ("weights on disk, MB", "<=", 12),
    "faces_per_s": (f"faces per second, batch {SPEED_BATCH}, two threads", ">=", 400),
}


def crops_of(parquet: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every image as the crop the pipeline makes: uint8[n, 224, 224, 3], and bool[n] found."""
    import cv2

    images = pl.read_parquet(parquet, columns=["image"])["image"]
    crops, found = np.zeros((len(images), 224, 224, 3), np.uint8), np.zeros(len(images), bool)
    for row, image in enumerate(track(images, "finding faces")):
        gray = data.decode(image)
        size = (placing.ENLARGED, placing.ENLARGED)
        large = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC)
        faces = find(np.repeat(large[:, :, None], 3, axis=2))
        found[row] = bool(faces)
        if faces:
            crops[row] = max(faces, key=lambda face: face.score).crop
        else:
            frame = cv2.resize(placing.lay(gray, placing.usual_place()), (224, 224))
            crops[row] = frame[:, :, None]
    return crops, found


def votes_and_proxies(parquet: Path) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Counts [n, 10], the units' numbers and their raw proxies [n, K]."""
    names = (parquet.parent / "blendshape_names.txt").read_text().split()
    frame = pl.read_parquet(parquet, columns=[*EXPRESSIONS, "unknown", "NF", "blendshapes"])
    shapes = np.full((len(frame), len(names)), np.nan, dtype=np.float32)
    for row, scores in enumerate(frame["blendshapes"].to_list()):
        if scores is not None:
            shapes[row] = scores
    units, proxies = targets.au_proxies(shapes, names)
    return frame.drop("blendshapes").to_numpy().astype(np.int64), units, proxies


def with_interval(
    name: str, of: Callable[[np.ndarray], dict[str, float]], n: int
) -> dict[str, dict[str, float]]:
    """Each figure with the 2.5 and 97.5 percentiles over images drawn with replacement."""
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
    rows, label = measure.truth(votes)
    table = measure.confusion(label[rows], answers[rows, : len(EXPRESSIONS)].argmax(axis=1))
    scores, mistakes = measure.f1(table), table - np.diag(np.diag(table))
    shares = votes / votes.sum(axis=1, keepdims=True)
    return [
        {
            "expression": expression,
            "faces": int(table[index].sum()),
            "recall": float(table[index, index] / max(1, table[index].sum())),
            "precision": float(table[index, index] / max(1, table[:, index].sum())),
            "f1": float(scores[index]),
            "mean_share_votes": float(shares[:, index].mean()),
            "mean_share_rater": float(answers[:, index].mean()),
            "taken_for": EXPRESSIONS[int(mistakes[index].argmax())],
        }
        for index, expression in enumerate(EXPRESSIONS)
    ]  # fmt: skip


def speed(rater: MachineRater, crops: np.ndarray) -> dict[str, float]:
    """Faces per second of the rater and of a plain ResNet-18, in turns, each at its best."""
    batch = np.ascontiguousarray(crops[:SPEED_BATCH])
    with tempfile.TemporaryDirectory() as folder:
        session = _resnet18(Path(folder) / "resnet18.onnx", threads=2)
        blob = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        ours, theirs = [], []
        for _ in range(SPEED_ROUNDS):
            ours.append(_seconds(lambda: rater.rate(batch)))
            theirs.append(_seconds(lambda: session.run(None, {"image": blob})))
    rate, rival = SPEED_BATCH / min(ours), SPEED_BATCH / min(theirs)
    return {
        "faces_per_s": rate,
        "faces_per_s_median": SPEED_BATCH / float(np.median(ours)),
        "resnet18_per_s": rival,
        "ratio": rate / rival,
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resnet18(path: Path, *, threads: int) -> Any:
    """ResNet-18 (He et al., 2016) at 224 px with random weights; speed does not depend on them."""
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


def measured(name: str, parquet: Path, *, crops: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Everything about one rater, as it goes into the JSON."""
    rater = raters.load(name, threads=2)
    assert isinstance(rater, MachineRater)
    votes, units, proxies = votes_and_proxies(parquet)
    ratings = rater.rate(crops)
    answers = ratings.answers
    scale = {int(unit): top for unit, top in rater.card["au_scale"].items()}
    wanted = targets.rescale(units, proxies, scale)
    columns = [[unit.number for unit in ACTION_UNITS].index(unit) for unit in scale]
    au = ratings.au[:, columns]

    def of(rows: np.ndarray) -> dict[str, float]:
        by_unit = measure.correlations(list(scale), au[rows], wanted[rows])
        figures = measure.figures(answers[rows], votes[rows], power=ratings.plurality_power)
        return {**figures, "au": measure.mean_reliable(by_unit)}

    rows, label = measure.truth(votes)
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
        "face_found": float(found.mean()),
        "vote_entropy": float(measure.entropy(votes / votes.sum(axis=1, keepdims=True)).mean()),
        "figures": with_interval(rater.rater_id, of, len(votes)),
        "classes": per_class(answers, votes),
        "calibration": measure.calibration(closed.max(axis=1), right),
        "au": {str(k): v for k, v in measure.correlations(list(scale), au, wanted).items()},
        "megabytes": weights.stat().st_size / 1e6,
        **speed(rater, crops),
    }


def page(results: dict[str, dict[str, Any]]) -> str:
    """The Markdown of all raters' numbers, side by side."""
    some = next(iter(results.values()))
    lines = [
        "# Machine raters on FER+ valid",
        "",
        f"{some['date']}, commit {some['commit']}, {some['hardware']}, {some['provider']}. "
        "Written by `python -m tests.benchmarks.rater`.",
        "",
        *(
            f"- `{name}` is `{one['rater_id']}`: {one['architecture']}, "
            f"{one['parameters'] / 1e6:.2f} million parameters, learned from "
            f"{one['learned_from']} images (part {one['part']})"
            for name, one in results.items()
        ),
        "",
        "Protocol of Barsoum et al. (2016): plurality of ten votes; ties, `unknown` and "
        f"`not_a_face` left out, which leaves {some['images_of_the_protocol']} of "
        f"{some['images']} images. The pipeline finds a face in {some['face_found']:.1%} of "
        "them; the others enter as full frames and count. In brackets 95 % intervals, "
        f"{RESAMPLES} bootstrap resamples of images.",
        "",
        *_table("figure | wanted", results, [_wanted(key, results) for key in WANTED]),
        "",
        f"The votes' own entropy is {some['vote_entropy']:.3f} nats: cross-entropy cannot fall "
        "below it, and KL counts from it. Ten votes sample an opinion, so even a perfect rater "
        "keeps some KL. `expression` expects shares of votes, `plurality` the chance to be the "
        "plurality; each is held against what it speaks of.",
        "",
        f"Speed, best of {SPEED_ROUNDS} rounds taken in turns, from 224 px crops, graying and "
        "resizing included, beside a plain ResNet-18 at 224 px in the same run: "
        + "; ".join(
            f"`{name}` {one['faces_per_s']:.0f} faces/s (median {one['faces_per_s_median']:.0f}) "
            f"to {one['resnet18_per_s']:.0f}, ratio {one['ratio']:.1f}"
            for name, one in results.items()
        )
        + ".",
    ]
    for name, one in results.items():
        lines += ["", f"## `{name}` by expression", "", *_classes(one), "", *_curve(one)]
    units = sorted({unit for one in results.values() for unit in one["au"]}, key=int)
    lines += ["", "## AU proxies, Pearson r", ""]
    lines += _table("AU proxy", results, [_unit(unit, results) for unit in units])
    return "\n".join(lines) + "\n"


def _table(head: str, results: dict[str, Any], rows: list[str]) -> list[str]:
    columns = " | ".join([head, *(f"`{name}`" for name in results)])
    return [f"| {columns} |", "|" + "---|" * (columns.count(" | ") + 1), *rows]


def _wanted(key: str, results: dict[str, dict[str, Any]]) -> str:
    title, sense, bound = WANTED[key]
    cells = []
    for one in results.values():
        entry = one["figures"].get(key, {"value": one.get(key)})
        value, form = entry["value"], ".0f" if key == "faces_per_s" else ".3f"
        met = value >= bound if sense == ">=" else value <= bound
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
        cells.append(f"{value:{form}}{interval}" + ("" if met else " **missed**"))
    sign = "≥" if sense == ">=" else "≤"
    return f"| {title} | {sign} {bound:g} | " + " | ".join(cells) + " |"


def _classes(one: dict[str, Any]) -> list[str]:
    head = "expression | faces | recall | precision | F1 | mean share: votes | rater"
    lines = [f"| {head} | most often taken for |", "|---|---|---|---|---|---|---|---|"]
    for row in one["classes"]:
        lines.append(
            f"| {row['expression']} | {row['faces']} | {row['recall']:.2f} "
            f"| {row['precision']:.2f} | {row['f1']:.2f} | {row['mean_share_votes']:.3f} "
            f"| {row['mean_share_rater']:.3f} | {row['taken_for']} |"
        )
    return lines


def _curve(one: dict[str, Any]) -> list[str]:
    return [
        "| `plurality` of the first choice | is the plurality | faces |",
        "|---|---|---|",
        *(
            f"| {r['confidence']:.2f} | {r['right']:.2f} | {r['faces']} |"
            for r in one["calibration"]
        ),
    ]


def _unit(unit: str, results: dict[str, dict[str, Any]]) -> str:
    name = next(known.name for known in ACTION_UNITS if known.number == int(unit))
    mark = " (unreliable, not in the mean)" if int(unit) in targets.UNRELIABLE else ""
    cells = " | ".join(f"{one['au'].get(unit, float('nan')):.2f}" for one in results.values())
    return f"| {unit} {name}{mark} | {cells} |"


def gallery(name: str, results_of: Path, *, crops: np.ndarray, parquet: Path) -> None:
    """A picture of the faces a rater is most wrong about, for looking at; never to be committed.

    One row per expression: of the faces that at least seven of ten people call so, the twelve to
    which the rater gives it least.
    """
    import cv2

    votes, _, _ = votes_and_proxies(parquet)
    ratings = raters.load(name).rate(crops)
    sheet = np.full((len(EXPRESSIONS) * 118, 12 * 100, 3), 255, dtype=np.uint8)
    for row, expression in enumerate(EXPRESSIONS):
        sure = np.flatnonzero(votes[:, row] >= (7 if expression != "contempt" else 5))
        worst = sure[np.argsort(ratings.expression[sure, row])][:12]
        for column, face in enumerate(worst):
            top, left = row * 118, column * 100
            sheet[top : top + 98, left : left + 98] = cv2.resize(crops[face], (98, 98))
            said = EXPRESSIONS[ratings.expression[face].argmax()]
            text = f"{expression[:5]}>{said[:5]} {ratings.expression[face].max():.2f}"
            cv2.putText(sheet, text, (left, top + 112), 0, 0.34, (0, 0, 0), 1, cv2.LINE_AA)
    results_of.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(results_of / f"failures_{name}.png"), sheet[:, :, ::-1])


def speed_again(path: Path) -> dict[str, dict[str, Any]]:
    """The results in ``path`` with new speeds: a busy machine spoils these and nothing else."""
    results = json.loads(path.read_text())
    crops = np.random.default_rng(0).integers(0, 256, (SPEED_BATCH, 224, 224, 3), dtype=np.uint8)
    for name, one in results.items():
        rater = raters.load(name, threads=2)
        if not isinstance(rater, MachineRater) or rater.rater_id != one["rater_id"]:
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
    root = Path(__file__).parents[2]
    shared = Path(os.environ.get("RISORIUS_SHARED", root / ".." / "shared"))
    parquet = shared / "data" / "ferplus-valid.parquet"
    if not parquet.is_file():
        parser.error("FER+ is not here; set RISORIUS_SHARED to the folder that holds data/")
    if options.speed_only:
        results = speed_again(options.out / "rater.json")
        atomic.write_text(options.out / "rater.json", json.dumps(results, indent=1) + "\n")
        atomic.write_text(options.out / "rater.md", page(results))
        return
    crops, found = crops_of(parquet)
    for name in options.raters if options.gallery else ():
        gallery(name, options.gallery, crops=crops, parquet=parquet)
    results = {name: measured(name, parquet, crops=crops, found=found) for name in options.raters}
    atomic.write_text(options.out / "rater.json", json.dumps(results, indent=1) + "\n")
    text = page(results)
    atomic.write_text(options.out / "rater.md", text)
    print(text)


if __name__ == "__main__":
    main()
