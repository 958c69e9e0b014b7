"""Benchmark the label queue: ``python -m tests.benchmarks.queue``.

Every image of the FER+ validation file has ten votes. The simulation hides them and reveals one
whenever a policy requests a vote, in a random order per image. The votes so far are compared with
all ten. Writes ``results/queue.json`` and ``results/queue.md``, with every policy.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from annotation import raters
from annotation.sampling import active_learning
from tests.benchmarks.ferplus import crops_of, valid, votes_and_proxies
from tests.benchmarks.queue_page import BUDGETS, page
from tests.benchmarks.queue_policies import POLICIES, WANTED, Policy, by_queue
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic
from warehouse.vocabulary import ANSWERS

RESULTS = Path(__file__).parent / "results"
SEEDS = 3
STRENGTHS = (1.0, 2.0, 4.0, 8.0)


def drawn(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle each face's ten answers: int[n, 10], -1 if there are fewer."""
    order = np.full((len(truth), WANTED), -1)
    for row, counts in enumerate(truth):
        answers = rng.permutation(np.repeat(np.arange(len(ANSWERS)), counts))[:WANTED]
        order[row, : len(answers)] = answers
    return order


def spent(
    policy: Policy, truth: np.ndarray, machine: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """Measure the error of the labels at each budget, one row each."""
    rng = np.random.default_rng(seed)
    order = drawn(truth, rng)
    counts, had = np.zeros(truth.shape), np.zeros(len(truth), dtype=int)
    rows, total = [], 0
    for budget in BUDGETS:
        while total < round(budget * len(truth)):
            # Like the pipeline: a quarter of a vote per face, then a new ranking.
            step = min(len(truth) // 4, round(budget * len(truth)) - total)
            given = np.minimum(policy(counts, machine, step, rng), WANTED - had)
            for row in np.nonzero(given)[0]:
                for answer in order[row, had[row] : had[row] + given[row]]:
                    if answer >= 0:
                        counts[row, answer] += 1
            had += given
            total += int(given.sum())
            if given.sum() == 0:
                break
        rows.append({"votes_per_face": budget, **errors(counts, truth, machine)})
    return rows


def errors(counts: np.ndarray, truth: np.ndarray, machine: np.ndarray) -> dict[str, float]:
    """Measure the error of labels against those of all ten votes.

    ``distance``: total variation between the shares of all ten votes and the posterior of machine
    and votes so far. ``wrong``: share of faces with a wrong plurality, of those with a unique one.
    """
    whole = truth / truth.sum(axis=1, keepdims=True)
    belief = active_learning.MACHINE_VOTES * machine + counts
    belief = belief / belief.sum(axis=1, keepdims=True)
    top = np.sort(truth, axis=1)
    clear = top[:, -1] > top[:, -2]
    wrong = belief.argmax(axis=1) != truth.argmax(axis=1)
    return {
        "distance": float(np.abs(belief - whole).sum(axis=1).mean() / 2),
        "wrong": float(wrong[clear].mean()),
    }


def votes_for(rows: list[dict[str, Any]], distance: float) -> float | None:
    """Interpolate the votes per face that reach the mean ``distance``."""
    found = [(row["distance"], row["votes_per_face"]) for row in rows][::-1]
    if not found[0][0] <= distance <= found[-1][0]:
        return None
    return float(np.interp(distance, *zip(*found, strict=True)))


def mean_rows(runs: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    return [
        {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        for rows in zip(*runs, strict=True)
    ]


def machine_of(parquet: Path, kept: Path | None) -> np.ndarray:
    """Rate every image: float[n, 10], open set in the last two columns."""
    if kept is not None and kept.is_file():
        stored = np.load(kept)
        closed, opened = stored["e"], stored["o"]
    else:
        crops, _ = crops_of(parquet)
        rater = raters.load("default")
        rated = [rater.rate(crops[at : at + 64]) for at in range(0, len(crops), 64)]
        closed = np.concatenate([part.expression for part in rated])
        opened = np.concatenate([part.open_set for part in rated])
        if kept is not None:
            np.savez(kept, e=closed, o=opened)
    outside = np.clip(opened.astype(float), 0, 1)
    outside /= np.maximum(outside.sum(axis=1, keepdims=True), 1.0)
    machine = np.concatenate(
        [closed.astype(float) * (1 - outside.sum(axis=1, keepdims=True)), outside], axis=1
    )
    return machine / machine.sum(axis=1, keepdims=True)


def measured(parquet: Path, kept: Path | None, faces: int | None) -> dict[str, Any]:
    truth, _, _ = votes_and_proxies(parquet)
    machine = machine_of(parquet, kept)
    truth, machine = truth[:faces], machine[:faces]
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": revision(),
        "hardware": hardware(),
        "faces": len(truth),
        "seeds": SEEDS,
        "machine_votes": active_learning.MACHINE_VOTES,
        "policies": {
            name: mean_rows([spent(policy, truth, machine, seed) for seed in range(SEEDS)])
            for name, policy in POLICIES.items()
        },
        "strengths": strengths(truth, machine),
    }
    goal = result["policies"]["random"][BUDGETS.index(3.0)]["distance"]
    result["goal"] = goal
    result["votes_for_goal"] = {
        name: votes_for(rows, goal) for name, rows in result["policies"].items()
    }
    return result


def strengths(truth: np.ndarray, machine: np.ndarray) -> dict[str, list[dict[str, float]]]:
    """Measure the queue's budget by the votes that the machine counts as.

    Only the even rows are used; MACHINE_VOTES is chosen on them.
    """
    chosen, found = active_learning.MACHINE_VOTES, {}
    try:
        for strength in STRENGTHS:
            active_learning.MACHINE_VOTES = strength
            found[f"{strength:g}"] = spent(by_queue, truth[::2], machine[::2], seed=7)
    finally:
        active_learning.MACHINE_VOTES = chosen
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.queue", description=__doc__)
    parser.add_argument("--faces", type=int, help="number of images")
    parser.add_argument("--ratings", type=Path, help=".npz cache of the rater's answers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    parquet = valid(parser)
    result = measured(parquet, options.ratings, options.faces)
    atomic.write_text(options.out / "queue.json", json.dumps(result, indent=1) + "\n")
    text = page(result)
    atomic.write_text(options.out / "queue.md", text)
    print(text)


if __name__ == "__main__":
    main()
