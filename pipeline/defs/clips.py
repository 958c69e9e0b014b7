"""Clips: facial movements with their times, sound and words."""

from functools import partial

import dagster as dg
import polars as pl

from pipeline import progress, reporting
from pipeline.clips import batch as stage
from pipeline.defs.automation import AFTER_BATCH
from pipeline.defs.rating import ratings
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.reporting import clip_curves
from warehouse.storage import tables


@stage_asset(
    "rating",
    deps=[ratings],
    kinds={"numpy", "parquet"},
    team="data-engineering",
    table="clips",
    by_batch=True,
    when=AFTER_BATCH,
)
def clips(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """One row per facial movement of a track, with onset, apex, offset.

    A track without movements has one row with the reason. The times come from the curves of a
    machine rater, so they are proxies like its action units."""
    settings, home = workplace.settings(), workplace.home()
    options = stage.ClipOptions(
        keep_audio=settings.keep_audio,
        speech=settings.speech,
        movies=settings.show_clips,
        blur_bystanders=settings.blur_bystanders,
    )
    for key in context.partition_keys:
        report = partial(progress.report, "clips")
        processed = stage.find_clips(home, key, options, progress=report)
        context.log.info(f"{key}: searched {processed} videos for movements")
    found = pl.concat([tables.read(home, "clips", batch=key) for key in context.partition_keys])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "verdicts": md(reporting.table(_verdicts(found))),
            "movements": md(reporting.table(_strongest(found))),
            "curves": md(clip_curves.curves(home, found)),
        }
    )


@blocking_check(asset=clips)
def clips_add_up(workplace: Workplace) -> dg.AssetCheckResult:
    """Check that every track has a verdict and its times are in order."""
    home = workplace.home()
    found = tables.read(home, "clips")
    moving = tables.read(home, "videos").filter(
        (pl.col("verdict") == "kept") & (pl.col("duration_s") > 0)
    )
    tracks = tables.read(home, "tracks").join(moving, on=["video_id", "batch"], how="semi")
    lost = tracks.join(found, on="track_id", how="anti").height
    first = pl.col("onset_s").fill_null(pl.col("start_s"))
    last = pl.col("offset_s").fill_null(pl.col("end_s"))
    moved = found.filter(pl.col("verdict") == "kept")
    disordered = moved.filter(~(pl.col("apex_s").is_between(first, last) & (first < last))).height
    unexplained = found.filter((pl.col("verdict") != "kept") & pl.col("reason").is_null()).height
    return dg.AssetCheckResult(
        passed=not (lost or disordered or unexplained),
        metadata={
            "tracks without a verdict": lost,
            "out of order": disordered,
            "not kept and without a reason": unexplained,
        },
    )


def _verdicts(found: pl.DataFrame) -> pl.DataFrame:
    return found.group_by("verdict", "reason").len("clips").sort("verdict", "reason")


def _strongest(found: pl.DataFrame) -> pl.DataFrame:
    columns = ("clip_id", "onset_s", "apex_s", "offset_s", "apex_au", "apex_intensity",
               "apex_expression")  # fmt: skip
    kept = found.filter(pl.col("verdict") == "kept")
    return kept.sort("apex_intensity", "clip_id", descending=[True, False]).head(20).select(columns)
