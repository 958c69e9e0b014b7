"""Divide subjects into folds for cross-validation."""

from __future__ import annotations

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.splits import components

LOSO = "loso"
"""Leave one subject out: as many folds as groups of subjects."""


def check(text: str | None) -> str | None:
    """Return ``text`` if it names folds: None, ``loso`` or a number from 2 up."""
    if text is None or text == LOSO or (text.isdecimal() and int(text) >= 2):
        return text
    raise ReleaseError(
        "The folds are neither a number from 2 up nor loso", got=repr(text), hint="use --folds 5"
    )


def assign(rows: pl.DataFrame, folds: str) -> pl.Series:
    """Return the fold of each row, from 1.

    Subjects who share a video or nearly equal pictures stay together. The largest group goes to
    the smallest fold, so that folds are of similar size, and equal rows give equal folds.

    Args:
        rows: ``face_id, subject_id, video_id, duplicate_of``.
        folds: ``loso`` or a number.

    Raises:
        ReleaseError: there are fewer groups of subjects than folds.
    """
    named = rows.select(group=components(rows))
    sizes = named.group_by("group").len().sort("len", "group", descending=[True, False])
    count = sizes.height if folds == LOSO else int(folds)
    if sizes.height < max(count, 2):
        raise ReleaseError(
            "There are fewer subjects than folds",
            got=f"{sizes.height} subjects for {max(count, 2)} folds",
            hint="use fewer folds",
        )
    filled = [0] * count
    fold_of: dict[str, int] = {}
    for group, size in sizes.iter_rows():
        smallest = min(range(count), key=lambda fold: (filled[fold], fold))
        fold_of[group] = smallest + 1
        filled[smallest] += size
    return named["group"].replace_strict(fold_of, return_dtype=pl.Int64).alias("fold")
