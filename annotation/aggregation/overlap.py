"""How far one rater's answers about a face are those of the others."""

from __future__ import annotations

import polars as pl

from annotation.aggregation.votes import VoteTable


def overlap(votes: VoteTable) -> pl.DataFrame:
    """Each rater of each face against the other raters of that face.

    Two raters overlap by the common part of their answers, the sum over answers of the smaller
    share: 1 for the same answers, 0 for none in common, 1/2 for {anger} against {anger, disgust}.

    Returns:
        One row per ``face`` and ``rater`` with ``n_others`` and ``overlap`` in [0, 1]: the mean
        over the other raters, null where there is none. The mean of ``overlap`` over the raters
        of a face is the mean over its pairs of raters.
    """
    raters = pl.len().over("face")
    pairs = (
        votes.answers.select("face", "rater")
        .unique()
        .with_columns(n_others=raters.cast(pl.Int64) - 1)
    )
    # Within one face and answer, sorted by share, the smaller of a pair is the earlier one: a
    # running sum gives every rater's total without listing the pairs.
    cell = ("face", "answer")
    share = pl.col("share")
    common = (
        votes.answers.sort("face", "answer", "share", "rater")
        .with_columns(
            common=share.cum_sum().over(cell)
            - share
            + share * (pl.len().over(cell).cast(pl.Int64) - 1 - pl.int_range(pl.len()).over(cell))
        )
        .group_by("face", "rater")
        .agg(pl.col("common").sum())
    )
    return (
        pairs.join(common, on=["face", "rater"], how="left")
        .with_columns(
            overlap=pl.when(pl.col("n_others") > 0).then(
                (pl.col("common") / pl.col("n_others")).clip(0, 1)
            )
        )
        .drop("common")
        .sort("face", "rater")
    )


def agreement_of_faces(votes: VoteTable) -> pl.Series:
    """Float64[n_faces]: the mean overlap over pairs of raters; null with fewer than two raters."""
    means = overlap(votes).group_by("face").agg(pl.col("overlap").mean()).sort("face")
    return means["overlap"].alias("agreement")
