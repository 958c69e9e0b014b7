"""Number clips, divide them into folds and write their frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts import folds
from warehouse.releases.layouts.core import Export
from warehouse.releases.layouts.files import array_of
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS

_HEAVY = ("frames", "audio", "flow")

VOTES = 10
"""Votes that readers of DFEW divide the counts by."""


def read(export: Export) -> pl.DataFrame:
    """Return the clips without frames, sound and flow, with their label.

    The label is that of the face at the apex, by people's votes: ``soft_label, open_set_share,
    n_votes``. The machine's guess is never a label.

    Raises:
        ReleaseError: the version holds no clips.
    """
    import pyarrow.parquet as pq

    parts = []
    for split in SPLITS:
        for file in export.files("clips", split):
            opened = pq.ParquetFile(export.read(file))
            names = [name for name in opened.schema_arrow.names if name not in _HEAVY]
            frame = pl.DataFrame(pl.from_arrow(opened.read(columns=names)))
            parts.append(frame.with_columns(split=pl.lit(split)))
    if not parts:
        raise ReleaseError(
            "This version holds no clips",
            got=f"layout {export.options.layout}",
            hint="ingest videos and build a new version with RISORIUS_RELEASE_CLIPS=true",
        )
    faces = export.faces
    rows = pl.concat(parts, how="diagonal_relaxed")
    export.counts_in = dict(rows.group_by("split").len().iter_rows())
    refused = ~pl.col("video_id").is_in(faces["video_id"].unique().implode())
    rows = export.leave_out(rows, refused, "video_left_out")
    labels = faces.select("face_id", "soft_label", "open_set_share", "n_votes")
    apex = pl.col("face_ids").list.get(pl.col("apex"), null_on_oob=True)
    return (
        rows.with_columns(apex_face=apex)
        .join(labels.rename({"face_id": "apex_face"}), on="apex_face", how="left")
        .sort("split", "clip_id")
    )


def labelled(export: Export) -> pl.DataFrame:
    """Return the clips with a class: ``word, number`` and ``place`` from 1."""
    rows = export.classes.label(read(export))
    rows = export.leave_out(rows, pl.col("left_out"), None).drop("left_out")
    return rows.with_columns(place=pl.int_range(1, pl.len() + 1))


def sets(export: Export, rows: pl.DataFrame) -> Iterator[tuple[int, str, pl.DataFrame]]:
    """Yield fold, ``train`` or ``test``, and the clips of it.

    Without folds there is one, the release's own split.
    """
    if export.options.folds is None:
        divided = export.sets(rows)
        for name in ("train", "test"):
            yield 1, name, divided.filter(pl.col("set") == name)
        return
    named = rows.with_columns(face_id="clip_id", duplicate_of=pl.lit(None, pl.String))
    divided = rows.with_columns(folds.assign(named, export.options.folds))
    for fold in divided["fold"].unique().sort():
        yield fold, "train", divided.filter(pl.col("fold") != fold)
        yield fold, "test", divided.filter(pl.col("fold") == fold)


def counts(export: Export, rows: pl.DataFrame) -> np.ndarray:
    """Return int[n, k]: shares of the reader's classes in tenths."""
    shares = export.classes.shares(array_of(rows["soft_label"], len(EXPRESSIONS)))
    tenths: np.ndarray = np.rint(VOTES * np.nan_to_num(shares)).astype(int)
    return tenths


def write_sources(export: Export, rows: pl.DataFrame) -> None:
    """Write ``clips.csv``: the clip and the origin of the label by number."""
    export.table(
        "clips.csv",
        (
            (place, clip, subject, video, split, word, "apex", votes, start, end)
            for place, clip, subject, video, split, word, votes, start, end in rows.select(
                "place", "clip_id", "subject_id", "video_id", "split", "word", "n_votes",
                "start_s", "end_s",
            ).iter_rows()
        ),
        header=("number", "clip_id", "subject_id", "video_id", "split", "label", "label_source",
                "n_votes", "start_s", "end_s"),
    )  # fmt: skip
