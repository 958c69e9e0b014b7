"""Write valence and arousal over time: OMG-Empathy, COGNIMUSE, or long."""

from __future__ import annotations

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

_RATE = 25.0
"""Values a second of ``cognimuse``."""

_QUANTITIES = ("valence", "arousal")


def write(export: Export) -> None:
    """Write ``traces.csv`` and the files of a reader.

    Values are the means that people gave to single faces. Between them they are interpolated
    linearly, before the first and after the last they are held; ``traces.csv`` has the given ones
    alone. ``omg``: ``Subject_<n>_Story_<m>.csv`` with a row per frame up to the last face.
    ``cognimuse``: a csv per video at 25 Hz.

    Raises:
        ReleaseError: no person gave valence to two faces of a video.
    """
    faces = export.faces
    rows = export.leave_out(faces, pl.col("valence").is_null(), "no_valence")
    single = pl.len().over("video_id", "subject_id") < 2
    rows = export.leave_out(rows, single, "a_single_value").sort("video_id", "subject_id", "time_s")
    if rows.is_empty():
        raise ReleaseError(
            "No video has valence at two times",
            got=f"{faces.height} faces",
            hint="ask for valence with RISORIUS_ASK_MOOD=true and build a new version",
        )
    omg = export.options.dialect == "omg"
    if omg:
        rows = export.with_frames(rows)
    rows = rows.with_columns(
        subject=pl.col("subject_id").rank("dense").cast(pl.Int64),
    ).with_columns(story=pl.col("video_id").rank("dense").over("subject").cast(pl.Int64))
    long = []
    placed = []
    for (subject, story), part in rows.group_by("subject", "story", maintain_order=True):
        first = part.row(0, named=True)
        name = f"Subject_{subject}_Story_{story}"
        if not omg:
            name = f"{safe(first['video_id'])}_{safe(first['subject_id'])}"
        file = f"Annotations/{name}.csv" if omg else f"{name}.csv"
        columns = ["valence"] if omg else ["time_s", *_QUANTITIES]
        export.table(file, _sampled(part, omg=omg), header=columns)
        placed.append(part.with_columns(path=pl.lit(file)))
        long += [
            (first["video_id"], first["subject_id"], quantity, time, value)
            for quantity in _QUANTITIES
            for time, value in part.select("time_s", quantity).drop_nulls().iter_rows()
        ]
    header = ("video", "subject_id", "quantity", "time_s", "value")
    export.table("traces.csv", long, header=header)
    export.keep(pl.concat(placed))


def _sampled(part: pl.DataFrame, *, omg: bool) -> list[tuple[float | None, ...]]:
    if omg:
        frames = part["frame"].to_numpy()
        values = np.interp(np.arange(frames.max() + 1), frames, part["valence"].to_numpy())
        return [(float(value),) for value in values]
    last = float(part["time_s"].to_numpy().max())
    times = np.arange(int(np.floor(last * _RATE)) + 1) / _RATE
    columns = [times]
    for quantity in _QUANTITIES:
        known = part.select("time_s", quantity).drop_nulls()
        if known.is_empty():
            columns.append(np.full(len(times), np.nan))
        else:
            given = known["time_s"].to_numpy(), known[quantity].to_numpy()
            columns.append(np.interp(times, *given))
    return [tuple(float(value) for value in row) for row in zip(*columns, strict=True)]


LAYOUT = Layout("traces", "valence and arousal over time", write, dialects=("omg", "cognimuse"))
