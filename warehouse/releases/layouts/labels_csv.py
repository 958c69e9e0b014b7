"""Write the csv of FER benchmarks: one row per picture."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

_HEADER = (
    "dataset", "user_id", "name", "class", "age", "gender", "race", "perspective", "age_group",
    "subset", "auto_age", "auto_gender", "auto_perspective",
)  # fmt: skip
_FRONTAL, _PROFILE = 20.0, 60.0
"""Degrees of yaw up to which a face is frontal, and from which it is a profile."""


def write(export: Export) -> None:
    """Write ``labels.csv`` and ``images/``.

    The perspective is estimated from the yaw, so ``auto_perspective`` is 1. Age, gender and race
    are empty: a machine must not guess them, and no data subject has declared them.
    """
    rows = export.labelled().with_columns(path=pl.format("images/{}{}", "stem", "suffix"))
    yaw = pl.col("yaw").abs() if "yaw" in rows.columns else pl.lit(None, pl.Float64)
    perspective = (
        pl.when(yaw <= _FRONTAL).then(pl.lit("frontal"))
        .when(yaw < _PROFILE).then(pl.lit("half_profile"))
        .when(yaw.is_not_null()).then(pl.lit("profile"))
    )  # fmt: skip
    dataset = safe(str(export.contents["name"]))
    table = rows.with_columns(perspective=perspective)
    export.table(
        "labels.csv",
        (
            (dataset, subject, path, word, None, None, None, view, None, split, 0, 0,
             int(view is not None))
            for subject, path, word, view, split in table.select(
                "subject_id", "path", "word", "perspective", "split"
            ).iter_rows()
        ),
        header=_HEADER,
    )  # fmt: skip
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


LAYOUT = Layout("labels-csv", "the 13 columns of FER benchmarks", write, order="basic6:ekman6")
