"""Raters in an order that their names have no part in."""

from __future__ import annotations

import polars as pl

_NEEDED = ("face_id", "rater_id", "label")


def nameless(votes: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Votes with raters numbered by what they answered, and number to ``rater_id``.

    A pseudonym changes with the salt of a home, and a sum of floats in its last bit with the order
    of raters: numbered like this, the same votes give the same bytes in every home. Raters who
    gave the very same answers may swap numbers, which changes nothing.

    Args:
        votes: the long vote table; one with a column missing, or holes, is given back as it is,
            for whoever uses it to refuse.
    """
    if any(name not in votes.columns or votes[name].null_count() for name in _NEEDED):
        return votes, {}
    said = (
        votes.select(pl.col(_NEEDED).cast(pl.String))
        .sort("face_id", "label")
        .group_by("rater_id", maintain_order=True)
        .agg("face_id", "label")
    )
    order = sorted(said.iter_rows(), key=lambda row: row[1:])
    numbers = {rater: f"{number:08d}" for number, (rater, *_) in enumerate(order)}
    names = pl.col("rater_id").cast(pl.String)
    numbered = votes.with_columns(names.replace_strict(numbers, return_dtype=pl.String))
    return numbered, {number: rater for rater, number in numbers.items()}
