"""Rater quality: agreement with the other raters of the same faces."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregation.agreement import overlap
from annotation.aggregation.votes import FloatArray, VoteTable, tally, to_frame
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS

_PRIOR_VOTES = 10.0
"""Votes that the mean weight of all raters counts as in a rater's own weight."""

_TIE = 1e-9


def rater_quality(votes: pl.DataFrame, labels: pl.DataFrame | None = None) -> pl.DataFrame:
    """Compute one row per rater in the schema of the table ``rater_quality``.

    A rater is always compared with the *other* raters of a face, never with a label that includes
    the rater's own vote.

    - ``n_votes``: faces the rater answered.
    - ``agreement``: mean overlap with the other raters, over faces with several raters; null
      without such faces.
    - ``confusion``: float[10][10]. Row: the rater's answer; column: plurality of the others, tied
      answers sharing. Rows sum to 1, or to 0 without a comparison.
    - ``weight`` in [0, 1]: chance-corrected agreement (1: always like the others, 0: like random
      draws from all votes), shrunk to the mean of all raters by ten votes; 1 without a comparison.
      Aggregation ignores it unless ``weighted`` is applied.
    - ``drift``: null. The audit ``rater_drift`` fills it.

    Args:
        votes: as for ``soft_labels``.
        labels: soft labels; if set, only votes on their faces count.

    Raises:
        TableError: as for ``soft_labels``.
    """
    votes = to_frame(votes)
    if labels is not None and "face_id" in votes.columns:
        votes = votes.filter(pl.col("face_id").is_in(labels["face_id"].to_list()))
    table = tally(votes)
    raters = (
        overlap(table)
        .group_by("rater")
        .agg(
            n_votes=pl.len(),
            compared=pl.col("overlap").count(),
            agreement=pl.col("overlap").mean(),
        )
    )
    raters = raters.sort("rater")
    schema = TABLES["rater_quality"].schema
    frame = raters.select(
        rater_id=pl.Series(table.rater_ids, dtype=pl.String),
        n_votes=pl.col("n_votes").cast(pl.Int64),
        weight=_weight(table, raters),
        agreement="agreement",
        confusion=pl.Series(_confusion(table), dtype=schema["confusion"]),
        drift=pl.lit(None, pl.Float64),
    )
    return frame.cast(schema)


def weighted(votes: pl.DataFrame, quality: pl.DataFrame) -> pl.DataFrame:
    """Multiply each vote's weight by its rater's; unknown raters count fully.

    This makes ``rater_quality.weight`` count in ``soft_labels``. It is optional because a rater who
    differs may be wrong, or may see what others miss.

    Args:
        votes: as for ``soft_labels``; without ``weight``, each of k answers of a rater counts 1/k.
        quality: ``rater_id, weight`` of ``rater_quality``.
    """
    votes = to_frame(votes)
    share = 1.0 / pl.len().over("face_id", "rater_id")
    given = pl.col("weight") if "weight" in votes.columns else share
    factors = quality.select("rater_id", factor=pl.col("weight"))
    joined = votes.with_columns(weight=given).join(
        factors, on="rater_id", how="left", maintain_order="left"
    )
    weight = pl.col("weight") * pl.col("factor").fill_null(1.0)
    return joined.with_columns(weight=weight).drop("factor")


def _weight(table: VoteTable, raters: pl.DataFrame) -> pl.Series:
    marginal = table.counts("share").sum(axis=0)
    chance = float(((marginal / max(marginal.sum(), 1.0)) ** 2).sum())
    compared = raters["compared"].to_numpy().astype(float)
    agreement = raters["agreement"].fill_null(1.0).to_numpy()
    # If all votes are the same answer, agreement carries no information.
    above_chance = 1 - chance
    skill = (agreement - chance) / above_chance if above_chance > _TIE else np.ones_like(agreement)
    total = compared.sum()
    mean = float((skill * compared).sum() / total) if total else 1.0
    weight = (skill * compared + mean * _PRIOR_VOTES) / (compared + _PRIOR_VOTES)
    return pl.Series(np.where(compared > 0, np.clip(weight, 0, 1), 1.0))


def _confusion(table: VoteTable) -> list[list[list[float]]]:
    totals = table.counts("share")
    answers = table.answers.sort("rater", "face", "answer")
    sums = np.zeros((len(table.rater_ids), len(ANSWERS), len(ANSWERS)))
    for (rater,), part in answers.group_by("rater", maintain_order=True):
        faces, rows = np.unique(part["face"].to_numpy(), return_inverse=True)
        own = np.zeros((len(faces), len(ANSWERS)))
        own[rows, part["answer"].to_numpy()] = part["share"].to_numpy()
        sums[rater] = own.T @ _plurality(totals[faces] - own)
    per_answer = sums.sum(axis=2, keepdims=True)
    confusion = np.divide(sums, per_answer, out=np.zeros_like(sums), where=per_answer > 0)
    rows_per_rater: list[list[list[float]]] = confusion.tolist()
    return rows_per_rater


def _plurality(counts: FloatArray) -> FloatArray:
    best = counts.max(axis=1, keepdims=True)
    top = (counts > best - _TIE) & (best > _TIE)
    plurality: FloatArray = top / np.maximum(top.sum(axis=1, keepdims=True), 1)
    return plurality
