"""What each rater's votes are worth, judged by the other raters."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregation.overlap import overlap
from annotation.aggregation.votes import VoteTable, tally
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS

_PRIOR_VOTES = 10.0
"""How many votes the average rater's worth counts when a rater's own is estimated."""

_TIE = 1e-9


def rater_quality(votes: pl.DataFrame, labels: pl.DataFrame | None = None) -> pl.DataFrame:
    """One row per rater, in the schema of ``rater_quality``.

    A rater is always compared with the *others* of the same face, never with a label the rater
    helped to make.

    - ``n_votes``: faces the rater answered.
    - ``agreement``: mean overlap with the other raters, over faces that have others; null
      without any.
    - ``confusion``: float[10][10]; row = the rater's answer, column = what the plurality of the
      others says, tied answers sharing; rows sum to 1, or to 0 where there is nothing to compare.
    - ``weight`` in [0, 1]: agreement corrected for chance (1 = always as the others, 0 = no
      better than drawing from all votes), pulled towards the mean of all raters by ten votes'
      worth; 1 where nothing can be compared. No aggregation uses it unasked.
    - ``drift``: null here; ``annotation.audit``'s ``rater_drift`` fills it.

    Args:
        votes: as for ``soft_labels``.
        labels: soft labels; when given, only votes on the faces in it count.

    Raises:
        TableError: as for ``soft_labels``.
    """
    if labels is not None and "face_id" in votes.columns:
        votes = votes.filter(pl.col("face_id").is_in(labels["face_id"].to_list()))
    table = tally(votes)
    pairs = overlap(table)
    seen = pairs.group_by("rater").agg(
        n_votes=pl.len(),
        compared=pl.col("overlap").count(),
        agreement=pl.col("overlap").mean(),
    )
    seen = seen.sort("rater")
    frame = seen.select(
        rater_id=pl.Series(table.rater_ids, dtype=pl.String),
        n_votes=pl.col("n_votes").cast(pl.Int64),
        weight=_worth(table, seen),
        agreement="agreement",
        confusion=pl.Series(_confusions(table), dtype=TABLES["rater_quality"].columns["confusion"]),
        drift=pl.lit(None, pl.Float64),
    )
    return frame.cast(TABLES["rater_quality"].schema)


def weighted(votes: pl.DataFrame, quality: pl.DataFrame) -> pl.DataFrame:
    """``votes`` whose weights are multiplied by their rater's; an unknown rater counts fully.

    The way to let ``rater_quality.weight`` count in ``soft_labels``, which never does so unasked:
    a rater who differs may be wrong, or may see what others do not.

    Args:
        votes: as for ``soft_labels``; without ``weight`` several answers of a rater share one say.
        quality: ``rater_id, weight`` as ``rater_quality`` gives them.
    """
    share = 1.0 / pl.len().over("face_id", "rater_id")
    given = pl.col("weight") if "weight" in votes.columns else share
    worth = quality.select("rater_id", worth=pl.col("weight"))
    joined = votes.with_columns(weight=given).join(
        worth, on="rater_id", how="left", maintain_order="left"
    )
    return joined.with_columns(weight=pl.col("weight") * pl.col("worth").fill_null(1.0)).drop(
        "worth"
    )


def _worth(table: VoteTable, seen: pl.DataFrame) -> pl.Series:
    marginal = table.counts("share").sum(axis=0)
    chance = float(((marginal / max(marginal.sum(), 1.0)) ** 2).sum())
    compared = seen["compared"].to_numpy().astype(float)
    agreement = seen["agreement"].fill_null(1.0).to_numpy()
    # Where everyone always says the same, chance is certainty and agreement tells nothing.
    spare = 1 - chance
    skill = (agreement - chance) / spare if spare > _TIE else np.ones_like(agreement)
    total = compared.sum()
    mean = float((skill * compared).sum() / total) if total else 1.0
    weight = (skill * compared + mean * _PRIOR_VOTES) / (compared + _PRIOR_VOTES)
    return pl.Series(np.where(compared > 0, np.clip(weight, 0, 1), 1.0))


def _confusions(table: VoteTable) -> list[list[list[float]]]:
    totals = table.counts("share")
    answers = table.answers.sort("rater", "face", "answer")
    sums = np.zeros((len(table.rater_ids), len(ANSWERS), len(ANSWERS)))
    for (rater,), mine in answers.group_by("rater", maintain_order=True):
        faces, rows = np.unique(mine["face"].to_numpy(), return_inverse=True)
        own = np.zeros((len(faces), len(ANSWERS)))
        own[rows, mine["answer"].to_numpy()] = mine["share"].to_numpy()
        sums[rater] = own.T @ _plurality(totals[faces] - own)
    per_answer = sums.sum(axis=2, keepdims=True)
    normal = np.divide(sums, per_answer, out=np.zeros_like(sums), where=per_answer > 0)
    return normal.tolist()


def _plurality(counts: np.ndarray) -> np.ndarray:
    best = counts.max(axis=1, keepdims=True)
    top = (counts > best - _TIE) & (best > _TIE)
    return top / np.maximum(top.sum(axis=1, keepdims=True), 1)
