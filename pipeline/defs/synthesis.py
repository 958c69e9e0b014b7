"""Assets of synthesis: coverage gaps, synthetic faces, and their labels."""

import base64
from functools import partial

import dagster as dg
import numpy as np
import polars as pl

from pipeline import progress, reporting
from pipeline.defs.audit import curated_faces
from pipeline.defs.automation import WHEN_SETTLED
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.synthesis import jobs
from pipeline.synthesis.service import labelling_raters
from synthesis import image_grid
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS


@stage_asset(
    "synthesis", deps=[curated_faces], kinds={"duckdb"}, team="machine-learning", when=WHEN_SETTLED
)
def coverage_gaps(workplace: Workplace) -> dg.MaterializeResult:
    """Count curated faces per expression, action unit, pair of units and pose.

    One row per gap candidate, with how many faces are missing. Nothing is stored, so the asset
    cannot disagree with `curated_faces`."""
    settings, home = workplace.settings(), workplace.home()
    found = jobs.coverage_gaps(home, jobs.generator_of(settings).supported_units)
    short = found.filter(pl.col("missing") > 0)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "lacking": short.height,
            "cannot_be_made": short.filter(~pl.col("can_be_made")).height,
            "gaps": md(
                reporting.table(
                    short.sort("kind", "missing", "name", descending=[False, True, False])
                )
            ),
            "heat_map": md(_heat_map(home, found)),
        }
    )


@stage_asset(
    "synthesis",
    deps=[coverage_gaps],
    kinds={"pytorch", "parquet"},
    team="machine-learning",
    table="synthetic_faces",
)
def synthetic_faces(
    context: dg.AssetExecutionContext, workplace: Workplace
) -> dg.MaterializeResult:
    """Generate faces for the coverage gaps.

    One row per face with request, seed, model and crop. Existing faces are not generated again.
    `RISORIUS_SYNTH_FACES` sets the number of faces."""
    settings, home = workplace.settings(), workplace.home()
    generator = jobs.generator_of(settings)
    planned = jobs.plan(home, generator, settings.synth_faces)
    report = partial(progress.report, "synthesis")
    count = jobs.generate_faces(home, generator, planned, each=workplace.each(), progress=report)
    context.log.info(
        f"{count.generated} faces generated, {count.known} known, {count.removed} removed"
    )
    made = tables.read(home, "synthetic_faces").join(
        planned.select("face_id", "gap"), on="face_id", how="left"
    )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.height,
            "model": generator.model,
            "drawn": count.generated,
            "known_before": count.known,
            "no_longer_wanted": count.removed,
            "contact_sheet": md(_sheet(home, made, made["gap"])),
        }
    )


@stage_asset(
    "synthesis",
    deps=[synthetic_faces],
    kinds={"onnx", "parquet"},
    team="machine-learning",
    table="synthetic_faces",
)
def synthetic_labels(
    context: dg.AssetExecutionContext, workplace: Workplace
) -> dg.MaterializeResult:
    """Label synthetic faces by the machine rater.

    One row per face with measured action units, soft label, and the action kept, relabelled or
    dropped. The rater that guides and the one that evaluates do not label."""
    settings, home = workplace.settings(), workplace.home()
    generator = jobs.generator_of(settings)
    raters = labelling_raters(settings.rater, guide_id=generator.guide_id)
    report = partial(progress.report, "reading")
    labelled = jobs.label_faces(home, generator, raters, each=workplace.each(), progress=report)
    context.log.info(f"{labelled} faces rated by {len(raters)} raters")
    made = tables.read(home, "synthetic_faces").sort("action", "face_id", nulls_last=True)
    reasons = made["reason"].fill_null("kept").str.split(":").list.first()
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.height,
            "raters": ", ".join(rater.rater_id for rater in raters),
            **jobs.action_counts(home),
            "reasons": md(reporting.table(views.query(home, "SELECT * FROM synthetic_stages"))),
            "contact_sheet": md(_sheet(home, made, reasons)),
        }
    )


@blocking_check(asset=synthetic_faces)
def synthetic_faces_stand_once(workplace: Workplace) -> dg.AssetCheckResult:
    """Every synthetic face is unique and has a crop and a model."""
    home = workplace.home()
    made = tables.read(home, "synthetic_faces")
    repeated = int(made["face_id"].is_duplicated().sum())
    bare = made.filter(pl.col("crop").is_null() | pl.col("model").is_null())
    gone = sum(not media.path_of(home, key).is_file() for key in made["crop"].drop_nulls())
    return dg.AssetCheckResult(
        passed=repeated == 0 and bare.is_empty() and gone == 0,
        metadata={"repeated": repeated, "without crop or model": bare.height, "crops gone": gone},
    )


@blocking_check(asset=synthetic_labels)
def every_synthetic_face_has_an_action(workplace: Workplace) -> dg.AssetCheckResult:
    """Every face is kept, relabelled or dropped, with a reason unless kept."""
    made = tables.read(workplace.home(), "synthetic_faces")
    known = pl.col("action").is_in(["kept", "relabelled", "dropped"]).fill_null(False)
    odd = made.filter(~known)
    mute = made.filter((pl.col("action") != "kept") & pl.col("reason").is_null())
    return dg.AssetCheckResult(
        passed=odd.is_empty() and mute.is_empty(),
        metadata={"without an action": odd.height, "without a reason": mute.height},
    )


@blocking_check(asset=synthetic_labels)
def synthetic_labels_are_distributions(workplace: Workplace) -> dg.AssetCheckResult:
    """Soft labels that enter a release have no NaN and sum to one."""
    made = tables.read(workplace.home(), "synthetic_faces")
    entering = made.filter(pl.col("action").is_in(["kept", "relabelled"]))
    values = entering["soft_label"].drop_nulls().to_numpy().astype(float)
    values = values.reshape(-1, len(EXPRESSIONS))
    bad = int((~(np.abs(values.sum(axis=1) - 1) < 1e-3)).sum())
    bare = int(entering["soft_label"].null_count())
    return dg.AssetCheckResult(
        passed=bad == 0 and bare == 0, metadata={"not a distribution": bad, "without label": bare}
    )


def _sheet(home: Home, made: pl.DataFrame, captions: pl.Series) -> str:
    verdict = pl.col("action").replace("relabelled", "kept")
    short = [(text or "").split(":")[-1] for text in captions]
    return reporting.contact_sheet(home, made.with_columns(verdict=verdict), captions=short)


def _heat_map(home: Home, found: pl.DataFrame) -> str:
    """Draw expressions and poses, then a matrix of units.

    The diagonal holds single units; unmeasured cells stay white."""
    codes = [unit.code for unit in ACTION_UNITS]
    have = jobs.pair_counts(home)
    have[np.triu_indices(len(codes), 1)] = np.nan
    target = {(row["kind"], row["name"]): row["wanted"] for row in found.to_dicts()}
    wanted = np.full(have.shape, float(found.filter(pl.col("kind") == "pair")["wanted"][0]))
    np.fill_diagonal(wanted, [target["unit", code] for code in codes])
    units = image_grid.heat_map(have, wanted, columns=[code[2:] for code in codes], rows=codes)
    shown = found.filter(pl.col("kind").is_in(["expression", "pose"]))
    others = image_grid.heat_map(
        shown.select("have").to_numpy(),
        shown.select("wanted").to_numpy(),
        columns=["all"],
        rows=shown["name"].to_list(),
    )
    return _inline(others, "expressions and poses") + "\n\n" + _inline(units, "units and pairs")


def _inline(picture: np.ndarray, name: str) -> str:
    data = base64.b64encode(media.encode(picture, ".png")).decode()
    return f"![{name}](data:image/png;base64,{data})"
