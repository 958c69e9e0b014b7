"""Policies of the queue benchmark: which faces get the next votes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from annotation.sampling.queue import next_faces
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

WANTED = 10
"""Votes available per face."""

Policy = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
"""Map votes so far [n, 10], machine distribution [n, 10] and a budget to new votes per face [n]."""


def at_random(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """A random face that still needs votes."""
    given = np.zeros(len(counts), dtype=int)
    missing = np.repeat(np.arange(len(counts)), (WANTED - counts.sum(axis=1)).astype(int))
    np.add.at(given, rng.permutation(missing)[:votes], 1)
    return given


def in_turns(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """The face with the fewest votes; random on a tie."""
    given = np.zeros(len(counts), dtype=int)
    order = np.lexsort((rng.random(len(counts)), counts.sum(axis=1)))
    given[order[:votes]] = 1
    return given


def by_queue(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """The budget of ``next_faces``, as in the pipeline."""
    names, queued = _queued(counts, machine, budget=votes)
    wanted = dict(queued.select("face_id", "wanted_votes").iter_rows())
    had = counts.sum(axis=1).astype(int)
    return np.array([max(0, wanted.get(name, 0) - n) for name, n in zip(names, had, strict=True)])


def by_priority(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """One vote each for the faces of highest ``priority``, without budget."""
    names, queued = _queued(counts, machine, limit=votes)
    chosen = set(queued["face_id"])
    return np.array([int(name in chosen) for name in names])


def by_activelab(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """One vote each for the faces of lowest ActiveLab score, by cleanlab."""
    from annotation.sampling.active_learning import activelab_scores

    scores = activelab_scores(counts, machine)
    scores = np.where(counts.sum(axis=1) >= WANTED, np.inf, scores)
    given = np.zeros(len(counts), dtype=int)
    given[np.argsort(scores, kind="stable")[:votes]] = 1
    return given


POLICIES: dict[str, Policy] = {
    "random": at_random,
    "in turns": in_turns,
    "queue, budget": by_queue,
    "queue, priority order": by_priority,
    "ActiveLab": by_activelab,
}


def _queued(
    counts: np.ndarray, machine: np.ndarray, *, budget: int | None = None, limit: int | None = None
) -> tuple[list[str], pl.DataFrame]:
    """Face ids, and the queue of ``next_faces``."""
    names = [f"f{number:05d}" for number in range(len(counts))]
    queued = next_faces(
        pl.DataFrame({"face_id": names}),
        pl.DataFrame(
            {"face_id": names, "expression": machine[:, : len(EXPRESSIONS)]},
            schema_overrides={"expression": TABLES["ratings"].schema["expression"]},
        ),
        votes=_long_votes(names, counts),
        wanted_votes=WANTED,
        budget=budget,
        limit=limit,
    )
    return names, queued


def _long_votes(names: list[str], counts: np.ndarray) -> pl.DataFrame:
    """Convert counts to votes; each vote gets its own rater id."""
    face, answer = np.nonzero(counts)
    times = counts[face, answer].astype(int)
    face, answer = np.repeat(face, times), np.repeat(answer, times)
    return pl.DataFrame(
        {
            "face_id": [names[number] for number in face],
            "rater_id": [f"r{number}" for number in range(len(face))],
            "label": [ANSWERS[number] for number in answer],
        },
        schema={"face_id": pl.String, "rater_id": pl.String, "label": pl.String},
    )
