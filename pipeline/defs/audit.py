"""Audit: label noise, open set, rater drift, curation."""

from textwrap import wrap
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from annotation import aggregation, audit
from annotation.audit import AuditResult, curation
from pipeline import reporting
from pipeline.defs.annotation import soft_labels
from pipeline.defs.automation import WHEN_SETTLED
from pipeline.defs.rating import near_duplicates
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.reporting import SHOWN, captioned_sheet
from pipeline.settings import thresholds
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

_LABELLED = """
    SELECT soft_labels.*, one.expression AS probability, one.open_set, one.feature, faces.crop,
           coalesce(identities.subject_id, soft_labels.face_id) AS subject
    FROM soft_labels
    JOIN (SELECT * FROM ratings
          QUALIFY row_number() OVER (PARTITION BY face_id ORDER BY rater_id DESC) = 1) AS one
        ON one.face_id = soft_labels.face_id
    JOIN faces ON faces.face_id = soft_labels.face_id
    LEFT JOIN identities ON identities.face_id = soft_labels.face_id
    ORDER BY soft_labels.face_id
"""
_VOTES = """
    SELECT votes.*, lead_time_s FROM votes
    LEFT JOIN current_votes USING (face_id, rater_id)
"""
_SHOWN = 48


@stage_asset(
    "audit",
    deps=[soft_labels],
    kinds={"cleanlab", "parquet"},
    team="annotation",
    table="audits",
    when=WHEN_SETTLED,
)
def label_noise(workplace: Workplace) -> dg.MaterializeResult:
    """Score how far each label can be trusted.

    One row per voted face, by cleanlab's confident learning on out-of-sample probabilities of
    the machine rater.
    """
    home = workplace.home()
    labelled, inputs = _inputs(home)
    votes = views.query(home, "SELECT * FROM votes")
    threshold = thresholds().label_noise
    result = audit.run(
        "label_noise", **inputs, votes=votes, out_of_sample=True, threshold=threshold
    )
    return _stored(home, labelled, result, audit="label_noise")


@stage_asset(
    "audit",
    deps=[soft_labels],
    kinds={"cleanlab", "parquet"},
    team="annotation",
    table="audits",
    when=WHEN_SETTLED,
)
def open_set(workplace: Workplace) -> dg.MaterializeResult:
    """Score whether each face shows a known expression.

    One row per voted face, from cleanlab's out-of-distribution score, the rater's open-set mass
    and open-set votes.
    """
    home = workplace.home()
    labelled, inputs = _inputs(home)
    rated = {name: _array(labelled, name) for name in ("feature", "open_set")}
    result = audit.run(
        "open_set",
        **inputs,
        features=rated["feature"],
        open_set=rated["open_set"],
        threshold=thresholds().open_set,
    )
    return _stored(home, labelled, result, audit="open_set")


@stage_asset(
    "audit",
    deps=[soft_labels],
    kinds={"polars", "parquet"},
    team="annotation",
    table="rater_quality",
    when=WHEN_SETTLED,
)
def rater_drift(workplace: Workplace) -> dg.MaterializeResult:
    """Score the change of agreement between early and late votes.

    One row per rater, in `rater_quality.drift`. Lists, by pseudonym, raters who vote too fast or
    always alike, with the weight of their votes.
    """
    home = workplace.home()
    result = audit.run("rater_drift", votes=views.query(home, _VOTES))
    drift = pl.DataFrame(
        list(result.statistics["drift"].items()),
        schema={"rater_id": pl.String, "drift": pl.Float64},
        orient="row",
    )
    quality = (
        tables.read(home, "rater_quality").drop("drift").join(drift, on="rater_id", how="left")
    )
    tables.write(home, "rater_quality", quality, part="current")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": quality.height,
            "score": result.score,
            **{
                name: ", ".join(result.statistics[name]) or "none"
                for name in ("drifting", "hasty", "monotone")
            },
            "raters": md(reporting.table(_raters(quality, result))),
        }
    )


@stage_asset(
    "audit",
    deps=[label_noise, open_set, near_duplicates, rater_drift],
    kinds={"duckdb"},
    team="data-engineering",
    when=WHEN_SETTLED,
)
def curated_faces(workplace: Workplace) -> dg.MaterializeResult:
    """Join every voted face with the findings of all audits.

    One row per face in the view `curated_faces`, the input of releases. `decided_faces` adds
    keep, review or drop with reasons. Nothing is stored, so the views always agree with their
    tables.
    """
    home = workplace.home()
    curated = views.query(home, "SELECT * FROM decided_faces")
    review = curation.review(curated).join(curated.select("face_id", "crop"), on="face_id")
    decisions = curated.group_by("decision", pl.col("reasons").list.join(", ")).len("faces")
    flags = {
        name: int(curated[name].sum()) if curated.height else 0
        for name in ("is_label_issue", "is_open_set")
    }
    means = pl.DataFrame({"expression": EXPRESSIONS, "mean share": _mean_share(curated)})
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": curated.height,
            "votes": int(curated["n_votes"].sum()),
            **flags,
            "decisions": md(
                reporting.table(decisions.sort("decision", "faces", descending=[False, True]))
            ),
            "thresholds": md(reporting.table(curation.effects(curated))),
            "to_review": md(
                reporting.contact_sheet(
                    home,
                    review.head(_SHOWN),
                    captions=review.head(_SHOWN)["reasons"].list.join(" ").to_list(),
                )
            ),
            "coverage": md(reporting.table(means)),
        }
    )


@blocking_check(asset=curated_faces)
def curated_faces_are_whole(workplace: Workplace) -> dg.AssetCheckResult:
    """Every curated face once, with a subject, a licence and a crop."""
    curated = views.query(workplace.home(), "SELECT * FROM curated_faces")
    repeated = int(curated["face_id"].is_duplicated().sum())
    holes = curated.select("subject_id", "licence", "crop").null_count().row(0, named=True)
    return dg.AssetCheckResult(
        passed=repeated == 0 and not any(holes.values()),
        metadata={"repeated": repeated, **{f"without {name}": n for name, n in holes.items()}},
    )


def _inputs(home: Home) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return labelled faces with ratings, and the common audit arguments.

    Audits compare what people say with the machine rating, so their labels are shares of votes: a
    soft label may contain the rating.
    """
    labelled = views.query(home, _LABELLED)
    votes = views.query(home, "SELECT * FROM votes")
    shares = aggregation.soft_labels(votes, method="vote_share")
    return labelled, {
        "labels": labelled.select("face_id").join(
            shares, on="face_id", how="left", maintain_order="left"
        ),
        "probabilities": _array(labelled, "probability"),
        "groups": labelled["subject"].to_list(),
        "face_ids": labelled["face_id"].to_list(),
    }


def _stored(
    home: Home, labelled: pl.DataFrame, result: AuditResult, *, audit: str
) -> dg.MaterializeResult:
    tables.write(home, "audits", result.rows, part=audit)
    worst = (
        result.rows.filter(pl.col("score").is_not_null())
        .sort(pl.col("flag").not_(), "score", "face_id")
        .join(labelled, on="face_id", maintain_order="left")
    )
    numbers = {
        f"statistics/{key}": value
        for key, value in result.statistics.items()
        if isinstance(value, int | float | str)
    }
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": result.rows.height,
            "flagged": int(result.rows["flag"].sum()),
            "score": result.score,
            **numbers,
            "worst": md(captioned_sheet(home, _with_lines(worst.head(SHOWN)))),
        }
    )


def _with_lines(worst: pl.DataFrame) -> pl.DataFrame:
    """Add ``lines``: label and votes, score, and what the audit suggests."""
    lines = [
        [
            _label(share, opened),
            f"{score:.2f} of 1, {n} votes",
            *wrap(f"> {detail}" if detail else "", 24),
        ]
        for share, opened, detail, score, n in worst.select(
            "expression", "open_set_share", "detail", "score", "n_votes"
        ).iter_rows()
    ]
    return worst.with_columns(lines=pl.Series(lines, dtype=pl.List(pl.String)))


def _label(share: list[float] | None, opened: float) -> str:
    if share is None:
        return "no expression"
    top = int(np.argmax(share))
    closed = f"{EXPRESSIONS[top]} {share[top]:.0%}"
    return f"{closed}, open {opened:.0%}" if opened else closed


def _raters(quality: pl.DataFrame, result: AuditResult) -> pl.DataFrame:
    found = pl.DataFrame(
        [
            (row["rater_id"], row["most_frequent_share"], row["hasty_share"], row["weight"])
            for row in result.statistics["raters"]
        ],
        schema={
            "rater_id": pl.String,
            "most frequent answer": pl.Float64,
            "hasty": pl.Float64,
            "weight with habits": pl.Float64,
        },
        orient="row",
    )
    return quality.drop("confusion").join(found, on="rater_id", how="left")


def _array(frame: pl.DataFrame, column: str) -> np.ndarray:
    width = {"feature": 256, "open_set": 2}.get(column, len(EXPRESSIONS))
    return np.array(frame[column].to_list(), dtype=np.float32).reshape(frame.height, width)


def _mean_share(curated: pl.DataFrame) -> list[float]:
    known = curated.filter(pl.col("soft_label").is_not_null())
    if known.is_empty():
        return [0.0] * len(EXPRESSIONS)
    return _array(known, "soft_label").mean(axis=0).tolist()
