"""Labels: what the votes about each face add up to."""

import math

import dagster as dg
import polars as pl

from annotation import aggregation
from annotation.aggregation import agreement
from pipeline.defs.annotation import annotations
from pipeline.defs.automation import WHEN_SETTLED
from pipeline.defs.resources import Workplace
from pipeline.reporting import tables as pictures
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS


@dg.asset(
    deps=[annotations],
    automation_condition=WHEN_SETTLED,
    group_name="annotation",
    kinds={"polars", "parquet"},
    owners=["team:annotation"],
    tags={"table": "soft_labels"},
)
def soft_labels(workplace: Workplace) -> dg.MaterializeResult:
    """One row per voted face: the distribution over expressions that its votes support.

    Also fills `rater_quality`: how far each rater agrees with the others."""
    home, settings = workplace.home(), workplace.settings()
    votes = views.ask(home, "SELECT * FROM votes")
    labels = _with_units(aggregation.soft_labels(votes, method=settings.aggregation), home)
    tables.write(home, "soft_labels", labels, part="current")
    tables.write(home, "rater_quality", aggregation.rater_quality(votes, labels), part="current")
    shown = labels.join(tables.read(home, "faces").select("face_id", "crop"), on="face_id")
    shown = shown.sort("entropy", "face_id", nulls_last=True)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": labels.height,
            "votes": votes.height,
            "krippendorff_alpha": float(agreement.krippendorff_alpha(votes) or 0.0),
            "alpha by expression": dg.MetadataValue.md(
                pictures.table(agreement.alpha_by_expression(votes))
            ),
            "alpha by rater": dg.MetadataValue.md(pictures.table(agreement.alpha_by_rater(votes))),
            "alpha by week": dg.MetadataValue.md(pictures.table(agreement.alpha_over_time(votes))),
            "certain_to_disputed": dg.MetadataValue.md(
                pictures.contact_sheet(home, shown, captions=_top(shown))
            ),
        }
    )


@dg.asset_check(asset=soft_labels, blocking=True)
def soft_labels_sum_to_one(workplace: Workplace) -> dg.AssetCheckResult:
    """Each soft label sums to one and holds no NaN; it is missing only without a closed vote."""
    labels = tables.read(workplace.home(), "soft_labels")
    total = pl.col("expression").arr.sum()
    bad = labels.filter(pl.col("expression").is_not_null() & ~((total - 1).abs() < 1e-4))
    absent = labels.filter(pl.col("expression").is_null() & (pl.col("open_set_share") < 1))
    return dg.AssetCheckResult(
        passed=bad.is_empty() and absent.is_empty(),
        metadata={"rows": labels.height, "not a distribution": bad.height, "absent": absent.height},
    )


def _with_units(labels: pl.DataFrame, home: Home) -> pl.DataFrame:
    """Soft labels with ``au``: the mean intensity people coded per unit, NaN where nobody did."""
    coded = views.ask(
        home,
        "SELECT face_id, unit, avg(intensity) AS mean FROM au_votes GROUP BY ALL ORDER BY ALL",
    )
    if coded.is_empty():
        return labels
    rows: dict[str, list[float]] = {}
    for face, unit, mean in coded.iter_rows():
        rows.setdefault(face, [math.nan] * len(AU_INDEX))[AU_INDEX[unit]] = mean
    units = pl.DataFrame({"face_id": list(rows), "au": list(rows.values())}).with_columns(
        pl.col("au").cast(labels.schema["au"])
    )
    found = labels.drop("au").join(units, on="face_id", how="left", maintain_order="left")
    return found.select(labels.columns)


def _top(labels: pl.DataFrame) -> list[str]:
    captions = []
    for expression in labels["expression"]:
        if expression is None:
            captions.append("open set")
            continue
        values = list(expression)
        top = max(range(len(values)), key=values.__getitem__)
        captions.append(f"{EXPRESSIONS[top][:6]} {round(100 * values[top])}")
    return captions
