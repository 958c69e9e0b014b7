"""CROWDLAB: raters weighed against each other and against the machine, by cleanlab."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
import polars as pl

from annotation.aggregate.votes import tally
from warehouse.vocabulary import EXPRESSIONS

_CELLS = 50_000_000
"""cleanlab wants faces x raters dense; beyond this many cells it needs gigabytes."""


@dataclass(frozen=True)
class Posterior:
    """What CROWDLAB believes of each face.

    Attributes:
        right: float[n, 8]: probability that this expression is the true one; known for
            expressions that somebody voted for, NaN elsewhere.
        best: int[n]: the most probable expression; -1 for faces without a usable vote.
        worth: rater_id to weight in the ensemble.
        model_worth: the machine's weight beside them.
    """

    right: np.ndarray
    best: np.ndarray
    worth: dict[str, float]
    model_worth: float


def posterior(votes: pl.DataFrame, face_ids: list[str], belief: np.ndarray) -> Posterior | None:
    """CROWDLAB over the votes on ``face_ids``, or ``None`` where it does not apply.

    It knows one closed answer per rater and face, so open-set votes and several answers at once
    are left out. It applies when, after that, two raters or more share a face, and the table of
    faces x raters is no larger than fifty million cells.

    Args:
        votes: the long vote table.
        belief: float[n, 8], out-of-sample probabilities in the order of ``face_ids``.
    """
    single = _single_answers(votes, face_ids)
    raters = single["rater_id"].unique().sort().to_list()
    shared = single.group_by("row").len()["len"].max()
    if len(raters) < 2 or not isinstance(shared, int) or shared < 2:
        return None
    rows = single["row"].unique().sort().to_numpy()
    if len(rows) * len(raters) > _CELLS:
        return None
    wide = np.full((len(rows), len(raters)), np.nan)
    where = (
        np.searchsorted(rows, single["row"].to_numpy()),
        np.searchsorted(np.array(raters), single["rater_id"].to_numpy().astype(str)),
    )
    wide[where] = single["answer"].to_numpy()
    info = _run(wide, belief[rows])
    right = np.full(belief.shape, np.nan)
    right[single["row"].to_numpy(), single["answer"].to_numpy()] = info[
        "detailed_label_quality"
    ].to_numpy()[where]
    best = np.full(len(face_ids), -1)
    best[rows] = info["label_quality"]["consensus_label_best_quality"].to_numpy()
    worth = dict(zip(raters, np.asarray(info["annotator_weight"]).tolist(), strict=True))
    return Posterior(np.clip(right, 0, 1), best, worth, float(info["model_weight"]))


def _single_answers(votes: pl.DataFrame, face_ids: list[str]) -> pl.DataFrame:
    table = tally(votes)
    one = (pl.len().over("face", "rater") == 1) & (pl.col("answer") < len(EXPRESSIONS))
    rows = pl.DataFrame(
        {"face_id": face_ids, "row": range(len(face_ids))},
        schema={"face_id": pl.String, "row": pl.Int64},
    )
    single = table.named(table.answers.filter(one)).join(rows, on="face_id")
    return single.select("row", "rater_id", "answer").sort("row", "rater_id")


def _run(wide: np.ndarray, belief: np.ndarray) -> dict:
    from cleanlab.multiannotator import get_label_quality_multiannotator

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # Raters who never agree, or a class nobody votes for, are ordinary here.
        warnings.simplefilter("ignore")
        return get_label_quality_multiannotator(
            wide,
            belief,
            consensus_method=["majority_vote", "best_quality"],
            return_annotator_stats=False,
            return_weights=True,
            verbose=False,
        )
