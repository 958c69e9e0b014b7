"""Identities: whose face each face is, across cuts and videos."""

from pathlib import Path

import dagster as dg
import polars as pl

from pipeline import models
from pipeline.defs.automation import WHEN_SETTLED
from pipeline.defs.resources import Workplace
from pipeline.faces import identities as identifying
from pipeline.reporting import tables


@dg.asset(
    deps=["ratings"],
    automation_condition=WHEN_SETTLED,
    group_name="rating",
    kinds={"duckdb", "parquet"},
    owners=["team:data-engineering"],
    tags={"table": "identities"},
)
def identities(workplace: Workplace) -> dg.MaterializeResult:
    """One row per kept face: the subject it shows, which no split may part.

    With the setting `recogniser` persons are found by their faces. A declared subject counts;
    without either all faces of a video are held together."""
    home, named = workplace.home(), workplace.settings().recogniser
    found = identifying.identify(home, Path(models.place_of(home, named)) if named else None)
    shown = found.group_by("subject_id", "method").len("faces")
    shown = shown.sort("faces", "subject_id", descending=[True, False])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "subjects": dg.MetadataValue.md(tables.table(shown.head(50))),
            "embedded": int(found.select(pl.col("embedding").is_not_null().sum()).item()),
        }
    )
