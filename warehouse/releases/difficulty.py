"""Grade how hard a face is, from votes and the label audit."""

from __future__ import annotations

import polars as pl

LEVELS = ("easy", "challenging", "hard")

CLEAR_SHARE = 2 / 3
"""Largest share from which people are taken to agree: two of three raters, seven of ten."""


def with_difficulty(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``difficulty``, one of ``LEVELS``; null without a label.

    In the sense of AffectNet+ (Fard et al., 2024, arXiv:2410.22506), which grades a face by whether
    people and a model agree:

    - hard: the audit's out-of-sample model contradicts the label, or the votes are tied;
    - easy: at least two thirds of the votes go to one expression, and the model does not
      contradict;
    - challenging: the model does not contradict, but people are divided.

    Without an audit the votes alone decide.

    Args:
        rows: ``soft_label, is_label_issue``.
    """
    shares = pl.col("soft_label")
    if not isinstance(rows.schema["soft_label"], pl.List):
        shares = shares.arr.to_list()
    top = shares.list.sort(descending=True)
    largest, lead = top.list.get(0), top.list.get(0) - top.list.get(1)
    contradicted = pl.col("is_label_issue").fill_null(False) | (lead <= 1e-6)
    level = (
        pl.when(pl.col("soft_label").is_null())
        .then(None)
        .when(contradicted)
        .then(pl.lit("hard"))
        .when(largest >= CLEAR_SHARE - 1e-6)
        .then(pl.lit("easy"))
        .otherwise(pl.lit("challenging"))
    )
    return rows.with_columns(difficulty=level.cast(pl.String))
