"""Whom to ask next: the policies that ``tests.benchmarks.queue`` compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from annotation.sampling.queue import next_faces
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

WANTED = 10
"""Votes that each face has to give."""

Policy = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
"""From answers so far [n, 10], the machine's distribution [n, 10] and a number of votes to the
votes each face gets now [n]."""


def at_random(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """Any face that has not had all its votes, each as likely as any other."""
    given = np.zeros(len(counts), dtype=int)
    room = np.repeat(np.arange(len(counts)), (WANTED - counts.sum(axis=1)).astype(int))
    np.add.at(given, rng.permutation(room)[:votes], 1)
    return given


def in_turns(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """Every face gets its next vote before any gets one more; ties are drawn."""
    given = np.zeros(len(counts), dtype=int)
    order = np.lexsort((rng.random(len(counts)), counts.sum(axis=1)))
    given[order[:votes]] = 1
    return given


def by_queue(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """The budget of ``next_faces``, as the pipeline spends it."""
    names, queued = _queued(counts, machine, budget=votes)
    wanted = dict(queued.select("face_id", "wanted_votes").iter_rows())
    had = counts.sum(axis=1).astype(int)
    return np.array([max(0, wanted.get(name, 0) - n) for name, n in zip(names, had, strict=True)])


def by_priority(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """One vote each for the faces of highest ``priority``: the order without the budget."""
    names, queued = _queued(counts, machine, limit=votes)
    chosen = set(queued["face_id"])
    return np.array([int(name in chosen) for name in names])


def by_activelab(counts: np.ndarray, machine: np.ndarray, votes: int, rng: Any) -> np.ndarray:
    """One vote each for the faces of lowest ActiveLab score (Goh and Mueller, 2023,
    arXiv:2301.11856), cleanlab's implementation."""
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
    """Names of the faces, and what ``next_faces`` makes of them."""
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
    """Counts as a long vote table; who voted is not known, so every vote has a rater of its own."""
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
