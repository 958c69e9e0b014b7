"""Time and memory of aggregation, and of one neighbour graph."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from annotation import audit
from annotation.aggregation.dawid_skene import DawidSkene
from annotation.aggregation.votes import VoteTable
from annotation.audit import knn
from annotation.audit.knn import Neighbours
from tests.benchmarks.labels_data import Split
from tests.benchmarks.labels_rivals import RIVALS
from warehouse.vocabulary import EXPRESSIONS

_PASSES = 10
LARGEST = 32_000
WANTED_FACES = 1_400_000
_ASKED = 500
"""Faces whose true neighbours are found by all pairs, to tell the recall."""

_CENTRES = 200


def measured(
    train: Split, features: np.ndarray, *, large: bool, rows: int | None = None
) -> dict[str, Any]:
    """CPU seconds; rivals run in the same run.

    Args:
        features: float32[n, 256] of the machine rater on real faces.
        large: 14 million votes too.
        rows: faces of the largest of the four sizes.
    """
    counts = train.votes
    votes = table_of(np.repeat(np.tile(np.arange(10), len(counts)), counts.ravel()), 10)
    found: dict[str, Any] = {"votes": votes.answers.height, **_dawid_skene(votes)}
    found["rival"] = _rival(votes)
    if large:
        found["large"] = _apart(_many_votes)
    largest = rows or LARGEST
    some = grown(features, largest)
    found["sizes"] = [_apart(_audits, some[: largest // part]) for part in (8, 4, 2, 1)]
    found["exponents"] = _exponents(found["sizes"])
    found["indexes"] = [_index(name, some) for name in RIVALS]
    return found


def table_of(answers: np.ndarray, each: int) -> VoteTable:
    """Build a large vote table with ``each`` raters per face."""
    n = len(answers) // each
    face, rater = np.repeat(np.arange(n), each), np.tile(np.arange(each), n)
    ones = np.ones(n * each)
    frame = pl.DataFrame(
        {"face": face, "rater": rater, "answer": answers[: n * each], "weight": ones, "share": ones}
    )
    affect = pl.DataFrame({"valence": [None] * 0, "arousal": [None] * 0})
    return VoteTable(frame, affect, [str(i) for i in range(n)], [f"r{i}" for i in range(each)])


def grown(features: np.ndarray, n: int) -> np.ndarray:
    """Sample float32[n, d] from two hundred Gaussians fitted to real faces.

    There are too few real faces. Samples keep the clusters and the directions of variation.
    """
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(0)
    with threadpool_limits(1):
        centres = MiniBatchKMeans(_CENTRES, random_state=0, n_init=1).fit_predict(features)
    drawn = rng.choice(centres, n)
    made = np.empty((n, features.shape[1]), dtype=np.float32)
    for centre in np.unique(centres):
        rows, alike = np.flatnonzero(drawn == centre), features[centres == centre]
        middle = alike.mean(axis=0)
        with threadpool_limits(1):
            _, spread, axes = np.linalg.svd(alike - middle, full_matrices=False)
        noise = rng.standard_normal((len(rows), len(spread)), dtype=np.float32)
        made[rows] = middle + noise * (spread / max(np.sqrt(len(alike) - 1), 1)) @ axes
    return made


def _apart(work: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """Run ``work`` in a separate process to measure its peak memory."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_peaked, work, *given).result()


def _peaked(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    with threadpool_limits(1):
        found = work(*given)
    # ru_maxrss starts with the peak of the parent process, so it is not usable.
    status = Path("/proc/self/status").read_text()
    return {**found, "peak_gb": int(status.split("VmHWM:")[1].split()[0]) / 1e6}


def _many_votes() -> dict[str, Any]:
    answers = np.random.default_rng(0).integers(0, 10, 14_000_000)
    many = table_of(answers, 10)
    return {"votes": many.answers.height, **_dawid_skene(many, passes=100)}


def _dawid_skene(votes: VoteTable, passes: int = _PASSES) -> dict[str, float]:
    start = time.process_time()
    DawidSkene(n_iter=passes, tol=0, prior_votes=0).fit(votes)
    seconds = time.process_time() - start
    return {"cpu_s": seconds, "cpu_s_a_pass": seconds / passes}


def _rival(votes: VoteTable) -> dict[str, float] | None:
    if not find_spec("crowdkit"):
        return None
    import pandas as pd
    from crowdkit.aggregation import DawidSkene as Theirs

    rows = votes.answers.select("face", "rater", "answer").to_numpy()
    frame = pd.DataFrame(rows, columns=["task", "worker", "label"])
    start = time.process_time()
    # Below any loss: it stops early otherwise, and the posteriors are of other passes.
    theirs = Theirs(n_iter=_PASSES, tol=-np.inf).fit_predict_proba(frame)
    seconds = time.process_time() - start
    ours = DawidSkene(n_iter=_PASSES, tol=0, prior_votes=0).fit(votes).answers_
    aligned = theirs.reindex(columns=range(10)).fillna(0).sort_index().to_numpy()
    gap = np.abs(aligned - ours)
    return {
        "cpu_s_a_pass": seconds / _PASSES,
        "largest_gap": float(gap.max()),
        "other_answers": int((aligned.argmax(axis=1) != ours.argmax(axis=1)).sum()),
    }


def _audits(features: np.ndarray) -> dict[str, Any]:
    """Run one search by the index, then every audit with its neighbours."""
    n = len(features)
    rng = np.random.default_rng(1)
    ids = [f"{row:07d}" for row in range(n)]
    predicted = (features @ rng.standard_normal((features.shape[1], 8), dtype=np.float32)).argmax(
        axis=1
    )
    label = np.where(rng.random(n) < 0.1, rng.integers(0, 8, n), predicted)
    hashes = rng.integers(0, 2**63, n)
    hashes[: n // 10] = hashes[n // 2 : n // 2 + n // 10] ^ 1
    faces = pl.DataFrame(
        {
            "face_id": ids,
            "phash": [f"{word:016x}" for word in hashes.tolist()],
            "feature": pl.Series(features),
            "sharpness": rng.random(n),
        }
    )
    named = [EXPRESSIONS[index] for index in label.tolist()]
    given = {"features": features, "face_ids": ids}
    cpu: dict[str, float] = {}
    near = _timed(cpu, "neighbours", lambda: knn.nearest(features, k=10, exact=0))
    _timed(cpu, "open_set", lambda: audit.run("open_set", labels=named, neighbours=near, **given))
    _timed(
        cpu, "near_duplicates", lambda: audit.run("near_duplicates", faces=faces, neighbours=near)
    )
    _timed(cpu, "label_noise", lambda: audit.run("label_noise", labels=label, **given))
    return {"faces": n, "cpu_s": cpu, "recall": _recall(features, near)}


def _timed(cpu: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    start = time.process_time()
    done = work()
    cpu[name] = time.process_time() - start
    return done


def _recall(features: np.ndarray, near: Neighbours) -> float:
    """Recall of the true ten nearest, over a sample of faces."""
    asked = np.random.default_rng(2).choice(
        len(features), min(_ASKED, len(features)), replace=False
    )
    true = knn.nearest_in(features, features[asked], k=near.row.shape[1] + 1)
    hits = [
        len((set(row.tolist()) - {face}) & set(near.row[face].tolist()))
        for face, row in zip(asked.tolist(), true.row, strict=True)
    ]
    return float(np.mean(hits)) / near.row.shape[1]


def _exponents(sizes: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Fit the power of n of each time, and extrapolate to 1.4 million faces.

    Least squares in logarithms; nothing of that size was run.
    """
    logs = np.log([row["faces"] for row in sizes])
    found = {}
    for name in sizes[0]["cpu_s"]:
        seconds = np.log([max(row["cpu_s"][name], 1e-3) for row in sizes])
        power = np.polyfit(logs, seconds, 1)[0]
        far = np.exp(seconds[-1] + power * (np.log(WANTED_FACES) - logs[-1]))
        found[name] = {"power": float(power), "extrapolated_cpu_s": float(far)}
    return found


def _index(name: str, features: np.ndarray) -> dict[str, Any]:
    cpu: dict[str, float] = {}
    with threadpool_limits(1):
        near = _timed(cpu, name, lambda: RIVALS[name](features, 10))
    return {"name": name, "cpu_s": cpu[name], "recall": _recall(features, near)}
