"""Ingest: inbox folders become batches, files videos, videos faces."""

import time
from functools import partial

import dagster as dg
import polars as pl

from pipeline import models, progress, reporting
from pipeline.defs.automation import AFTER_BATCH, ON_NEW_BATCH
from pipeline.defs.partitions import NAME, batches
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.ingest import blocklist, facts
from pipeline.ingest import register as stage
from pipeline.video import hwaccel
from warehouse.errors import SettingsError
from warehouse.ids import check_batch
from warehouse.storage import tables, views

_SETTLE_S = 5.0
"""A folder that changed more recently may still be being copied."""


@stage_asset(
    "ingest",
    kinds={"ffmpeg", "parquet"},
    team="data-engineering",
    table="videos",
    by_batch=True,
    when=ON_NEW_BATCH,
)
def raw_videos(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """Register the source files of a batch.

    One row per file of `inbox/<batch>/`: its properties, or why it cannot be used. An image is a
    video of one frame. A file that cannot be decoded is a failed row.
    """
    settings, home = workplace.settings(), workplace.home()
    for key in context.partition_keys:
        report = partial(progress.report, "raw_videos")
        blocklist.readmit(home, key)
        count = stage.register(
            home,
            key,
            engine=settings.engine,
            workers=settings.workers,
            needs=settings.needs,
            progress=report,
        )
        if refused := blocklist.refuse(home, key):
            context.log.warning(f"{key}: {refused} files show erased subjects")
        facts.write_facts(home, key)
        context.log.info(f"{key}: {count.done} sources read, {count.skipped} known before")
    videos = _of_batches("videos", home, context.partition_keys)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": videos.height,
            "videos": md(reporting.table(_listed(videos))),
        }
    )


@stage_asset(
    "ingest",
    deps=[raw_videos],
    kinds={"onnx", "parquet"},
    team="data-engineering",
    table="faces",
    by_batch=True,
    when=AFTER_BATCH,
)
def faces(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """Find, align, track and gate the faces of a batch.

    One row per sampled, aligned face of every readable video. Dropped faces keep crop and reason.
    Alignment is InsightFace's, 224 px.
    """
    settings, home = workplace.settings(), workplace.home()
    options = stage.FaceOptions(
        sample_fps=settings.sample_fps,
        detector=models.place_of(home, settings.detector),
        gate=settings.gate.overrides(),
        blur_bystanders=settings.blur_bystanders,
    )
    context.log.info(hwaccel.describe(enabled=settings.hardware_decoding == "auto"))
    for key in context.partition_keys:
        blocklist.refuse(home, key)
        count = stage.find_faces(
            home,
            key,
            options,
            engine=settings.engine,
            workers=settings.workers,
            needs=settings.needs,
            limit_s=settings.video_limit_s or stage.time_limit,
            retry=settings.retry_failed,
            hardware=settings.hardware_decoding == "auto",
            progress=partial(progress.report, "faces"),
        )
        context.log.info(f"{key}: {count.done} videos decoded, {count.skipped} done before")
        if count.left:
            context.log.warning(f"{key}: {count.left} left, that ended their worker before")
    found = _of_batches("faces", home, context.partition_keys)
    by_verdict = found.sort("verdict", "reason", "face_id", descending=[True, False, False])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.height,
            "verdicts": md(reporting.table(_verdicts(found))),
            "contact_sheet": md(
                reporting.contact_sheet(home, by_verdict, captions=_short_reasons(by_verdict))
            ),
        }
    )


@blocking_check(asset=raw_videos)
def videos_add_up(workplace: Workplace) -> dg.AssetCheckResult:
    """Every source has one of three verdicts, and a reason unless kept."""
    videos = tables.read(workplace.home(), "videos")
    return _adds_up(videos)


@blocking_check(asset=faces)
def faces_add_up(workplace: Workplace) -> dg.AssetCheckResult:
    """Every face has a verdict, every readable video faces, no id repeats."""
    home = workplace.home()
    found = tables.read(home, "faces")
    searched = views.query(
        home,
        """SELECT count(*) AS n FROM videos
           WHERE verdict = 'kept' AND video_id NOT IN (SELECT video_id FROM faces)""",
    ).item()
    result = _adds_up(found)
    repeated = int(found["face_id"].is_duplicated().sum())
    return dg.AssetCheckResult(
        passed=result.passed and searched == 0 and repeated == 0,
        metadata={**result.metadata, "kept videos without faces": searched, "repeated": repeated},
    )


@dg.sensor(
    target=dg.AssetSelection.assets("raw_videos", "faces", "ratings", "clips", "segments"),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def inbox(
    context: dg.SensorEvaluationContext, workplace: Workplace
) -> dg.SensorResult | dg.SkipReason:
    """Register each new inbox folder as a batch."""
    known = set(context.instance.get_dynamic_partitions(NAME))
    folder = workplace.home().inbox
    new, refused = [], []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not entry.is_dir() or entry.name.startswith(".") or entry.name in known:
            continue
        if time.time() - entry.stat().st_mtime < _SETTLE_S:
            continue
        try:
            new.append(check_batch(entry.name))
        except SettingsError as error:
            refused.append(str(error))
    if refused:
        context.log.warning(f"folders that cannot be a batch: {refused}")
    if not new:
        return dg.SkipReason(refused[0] if refused else f"no new folder in {folder}")
    return dg.SensorResult(dynamic_partitions_requests=[batches.build_add_request(new)])


def _adds_up(frame: pl.DataFrame) -> dg.AssetCheckResult:
    counts = frame["verdict"].value_counts(sort=True)
    odd = frame.filter(~pl.col("verdict").is_in(["kept", "dropped", "failed"]))
    mute = frame.filter((pl.col("verdict") != "kept") & pl.col("reason").is_null())
    return dg.AssetCheckResult(
        passed=odd.is_empty() and mute.is_empty(),
        metadata={
            **{str(verdict): int(n) for verdict, n in counts.iter_rows()},
            "rows": frame.height,
            "without a verdict": odd.height,
            "not kept and without a reason": mute.height,
        },
    )


def _listed(videos: pl.DataFrame) -> pl.DataFrame:
    file = pl.col("uri").str.split("/").list.last().alias("file")
    known = ("duration_s", "fps", "width", "height", "subject_id", "verdict", "reason")
    return videos.select(file, *known)


def _verdicts(found: pl.DataFrame) -> pl.DataFrame:
    code = pl.col("reason").str.split(":").list.first()
    return found.group_by("verdict", code).len("faces").sort("verdict", "faces", descending=True)


def _short_reasons(found: pl.DataFrame) -> list[str]:
    return [(reason or "kept").split(":")[0] for reason in found["reason"]]


def _of_batches(name: str, home: object, keys: list[str]) -> pl.DataFrame:
    return pl.concat([tables.read(home, name, batch=key) for key in keys])  # type: ignore[arg-type]
