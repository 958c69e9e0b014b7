"""Time and memory: aggregating votes, and finding neighbours at growing sizes."""

from __future__ import annotations

import resource
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl

from annotation.aggregate.dawid_skene import DawidSkene
from annotation.aggregate.votes import VoteTable
from annotation.audit.neighbours import nearest
from tests.benchmarks.labels_data import Split

_PASSES = 10


def measured(train: Split, *, large: bool) -> dict[str, Any]:
    """CPU seconds; the rival runs where it is installed."""
    counts = train.votes
    votes = table_of(np.repeat(np.tile(np.arange(10), len(counts)), counts.ravel()), 10)
    found: dict[str, Any] = {"votes": votes.answers.height, **_dawid_skene(votes)}
    found["rival"] = _rival(votes)
    if large:
        answers = np.random.default_rng(0).integers(0, 10, 14_000_000)
        many = table_of(answers, 10)
        found["large"] = {"votes": many.answers.height, **_dawid_skene(many, passes=100)}
        found["large"]["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found["neighbours"] = [_neighbours(train.features[:n]) for n in (2000, 4000, 8000, 16000)]
    return found


def table_of(answers: np.ndarray, each: int) -> VoteTable:
    """A vote table in which ``each`` raters answer every face; made directly, for its size."""
    n = len(answers) // each
    face, rater = np.repeat(np.arange(n), each), np.tile(np.arange(each), n)
    ones = np.ones(n * each)
    frame = pl.DataFrame(
        {"face": face, "rater": rater, "answer": answers[: n * each], "weight": ones, "share": ones}
    )
    moods = pl.DataFrame({"valence": [None] * 0, "arousal": [None] * 0})
    return VoteTable(frame, moods, [str(i) for i in range(n)], [f"r{i}" for i in range(each)])


def _dawid_skene(votes: VoteTable, passes: int = _PASSES) -> dict[str, float]:
    start = time.process_time()
    DawidSkene(passes=passes, tolerance=0, prior_votes=0).fit(votes)
    seconds = time.process_time() - start
    return {"cpu_s": seconds, "cpu_s_a_pass": seconds / passes}


def _rival(votes: VoteTable) -> dict[str, float] | None:
    if not find_spec("crowdkit"):
        return None
    from crowdkit.aggregation import DawidSkene as Theirs

    rows = votes.answers.select("face", "rater", "answer").to_numpy()
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["task", "worker", "label"])
    start = time.process_time()
    theirs = Theirs(n_iter=_PASSES, tol=0).fit_predict_proba(frame)
    seconds = time.process_time() - start
    ours = DawidSkene(passes=_PASSES, tolerance=0, prior_votes=0).fit(votes).answers_
    aligned = theirs.reindex(columns=range(10)).fillna(0).sort_index().to_numpy()
    return {"cpu_s_a_pass": seconds / _PASSES, "largest_gap": float(np.abs(aligned - ours).max())}


def _neighbours(features: np.ndarray) -> dict[str, float]:
    start = time.process_time()
    nearest(features, k=10)
    return {"faces": len(features), "cpu_s": time.process_time() - start}
