"""Rating: machine ratings, identities, near duplicates."""

from functools import partial
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl

from annotation import audit, raters
from annotation.raters.batch import rate_batch
from pipeline import models, progress, reporting
from pipeline.defs.automation import AFTER_BATCH, WHEN_SETTLED
from pipeline.defs.ingest import faces
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.faces import identities as identifying
from pipeline.reporting import duplicates_sheet
from warehouse.storage import tables, views
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS


@stage_asset(
    "rating",
    deps=["ratings"],
    kinds={"duckdb", "parquet"},
    team="data-engineering",
    table="identities",
    when=WHEN_SETTLED,
)
def identities(workplace: Workplace) -> dg.MaterializeResult:
    """Assign a subject to every kept face.

    One row per face; a split never separates a subject. With the setting `recogniser` subjects
    are recognised by face. A declared subject wins; without either, all faces of a video share
    one.
    """
    home, named = workplace.home(), workplace.settings().recogniser
    found = identifying.identify(home, Path(models.place_of(home, named)) if named else None)
    shown = found.group_by("subject_id", "method").len("faces")
    shown = shown.sort("faces", "subject_id", descending=[True, False])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "subjects": md(reporting.table(shown.head(50))),
            "embedded": int(found.select(pl.col("embedding").is_not_null().sum()).item()),
        }
    )


@stage_asset(
    "rating",
    deps=[faces],
    kinds={"onnx", "parquet"},
    team="machine-learning",
    table="ratings",
    by_batch=True,
    when=AFTER_BATCH,
)
def ratings(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """Rate kept faces with the machine rater.

    One row per face and rater: expression, open-set mass, AU proxies, feature. The rater was not
    trained on these faces, so its probabilities are out of sample.
    """
    home = workplace.home()
    rater = raters.load(workplace.settings().rater)
    for key in context.partition_keys:
        count = rate_batch(
            home,
            key,
            rater,
            each=workplace.each(),
            progress=partial(progress.report, "ratings", key),
        )
        context.log.info(f"{key}: {count} faces rated by {rater.rater_id}")
    rated = pl.concat([tables.read(home, "ratings", batch=key) for key in context.partition_keys])
    shown = rated.join(tables.read(home, "faces").select("face_id", "crop"), on="face_id")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rated.height,
            "rater": rater.rater_id,
            "readings": md(reporting.contact_sheet(home, shown, captions=_readings(shown))),
            "mean_expression": md(reporting.table(_means(rated))),
        }
    )


@blocking_check(asset=ratings)
def ratings_are_distributions(workplace: Workplace) -> dg.AssetCheckResult:
    """Ratings sum to one without NaN, and every kept face is rated."""
    home = workplace.home()
    rated = tables.read(home, "ratings")
    values = rated["expression"].to_numpy().astype(float).reshape(-1, len(EXPRESSIONS))
    bad = int((~(np.abs(values.sum(axis=1) - 1) < 1e-3)).sum())
    unrated = views.query(
        home,
        """SELECT count(*) FROM faces WHERE verdict = 'kept'
           AND face_id NOT IN (SELECT face_id FROM ratings)""",
    ).item()
    return dg.AssetCheckResult(
        passed=bad == 0 and unrated == 0,
        metadata={"not a distribution": bad, "kept but unrated": unrated},
    )


@stage_asset(
    "audit",
    deps=[ratings],
    kinds={"numpy", "parquet"},
    team="annotation",
    table="audits",
    when=WHEN_SETTLED,
)
def near_duplicates(workplace: Workplace) -> dg.MaterializeResult:
    """Find faces that repeat another.

    One row per kept face. Runs before the queue, so that annotators see each picture once. Of
    two similar faces the one with votes is kept.
    """
    home = workplace.home()
    rated = views.query(
        home,
        """SELECT faces.face_id, phash, feature, sharpness, coalesce(n, 0) AS n_votes
           FROM faces JOIN ratings USING (face_id)
           LEFT JOIN (SELECT face_id, count(*) AS n FROM current_votes GROUP BY ALL) AS votes_cast
               ON votes_cast.face_id = faces.face_id
           WHERE verdict = 'kept' ORDER BY faces.face_id""",
    )
    result = audit.run("near_duplicates", faces=rated)
    tables.write(home, "audits", result.rows, part="near_duplicates")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": result.rows.height,
            "duplicates": int(result.rows["flag"].sum()),
            "score": result.score,
            "worst": md(duplicates_sheet(home, result.rows)),
        }
    )


def _readings(rated: pl.DataFrame) -> list[str]:
    captions = []
    for expression, au in rated.select("expression", "au").iter_rows():
        top = int(np.argmax(expression))
        units = np.nan_to_num(np.asarray(au, dtype=float), nan=-1.0)
        strongest = ACTION_UNITS[int(units.argmax())].number if units.max() > 0.3 else None
        unit = f" AU{strongest}" if strongest else ""
        captions.append(f"{EXPRESSIONS[top][:4]}{round(100 * expression[top])}{unit}")
    return captions


def _means(rated: pl.DataFrame) -> pl.DataFrame:
    values = rated["expression"].to_numpy().astype(float).reshape(-1, len(EXPRESSIONS))
    mean = values.mean(axis=0) if len(values) else np.zeros(len(EXPRESSIONS))
    return pl.DataFrame({"expression": EXPRESSIONS, "mean probability": mean})
