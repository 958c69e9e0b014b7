"""Segments: stretches of a video that people label as one item."""

from functools import partial

import dagster as dg
import polars as pl

from pipeline import progress, reporting
from pipeline.defs.automation import AFTER_BATCH
from pipeline.defs.ingest import faces
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.segments import batch as stage
from pipeline.segments import sensors as signals
from pipeline.settings import Settings
from warehouse.storage import tables


@stage_asset(
    "ingest",
    deps=[faces],
    kinds={"ffmpeg", "parquet"},
    team="data-engineering",
    table="segments",
    by_batch=True,
    when=AFTER_BATCH,
)
def segments(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """One row per stretch of a video: utterance, turn, span, clip.

    They come from `segments.csv` beside the videos, and from transcripts, fixed windows or shots
    where a setting says so. Each has its own video and, with `keep_audio`, its sound."""
    home, options = workplace.home(), segment_options(workplace.settings())
    for key in context.partition_keys:
        cut = stage.find_segments(home, key, options, progress=partial(progress.report, "segments"))
        context.log.info(f"{key}: {cut} videos cut into segments")
        for name in stage.unmatched_names(home, key):
            context.log.warning(f"{key}: segments.csv names {name!r}, which is not in the batch")
    found = pl.concat([tables.read(home, "segments", batch=key) for key in context.partition_keys])
    counts = found.group_by("source", "verdict", "reason").len("segments")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "verdicts": md(reporting.table(counts.sort("source", "verdict", "reason"))),
        }
    )


@stage_asset(
    "ingest",
    deps=[segments],
    kinds={"polars", "parquet"},
    team="data-engineering",
    table="sensors",
    by_batch=True,
    when=AFTER_BATCH,
)
def sensors(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """One row per signal beside a video, whole and cut to each segment.

    `<video>.<kind>.csv` or `.parquet` holds seconds and one column per channel. A file that cannot
    be read is a failed row."""
    home = workplace.home()
    for key in context.partition_keys:
        read = signals.find_sensors(home, key)
        context.log.info(f"{key}: signals of {read} videos read")
    found = pl.concat([tables.read(home, "sensors", batch=key) for key in context.partition_keys])
    counts = found.group_by("kind", "verdict", "reason").len("rows")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "verdicts": md(reporting.table(counts.sort("kind", "verdict", "reason"))),
        }
    )


def segment_options(settings: Settings) -> stage.SegmentOptions:
    """Return the options of segments that the settings name."""
    return stage.SegmentOptions(
        sources=settings.segments,
        window_s=settings.segment_window_s,
        videos=settings.segment_videos,
        sound=settings.keep_audio,
        blur_bystanders=settings.blur_bystanders,
    )


@blocking_check(asset=segments)
def segments_add_up(workplace: Workplace) -> dg.AssetCheckResult:
    """Check that kept segments lie inside their video and others say why not."""
    home = workplace.home()
    found = tables.read(home, "segments")
    videos = tables.read(home, "videos").select("video_id", "batch", "duration_s")
    kept = found.filter(pl.col("verdict") == "kept").join(videos, on=["video_id", "batch"])
    inside = (pl.col("start_s") >= 0) & (pl.col("end_s") <= pl.col("duration_s") + 1e-6)
    outside = kept.filter(~(inside & (pl.col("start_s") < pl.col("end_s")))).height
    mute = found.filter((pl.col("verdict") != "kept") & pl.col("reason").is_null()).height
    return dg.AssetCheckResult(
        passed=not (outside or mute),
        metadata={"outside their video": outside, "not kept and without a reason": mute},
    )
