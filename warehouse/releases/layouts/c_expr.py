"""Write the annotation files and trimmed videos of C-EXPR."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts import segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

_TIMES = ("Begin Time - hh:mm:ss.ms", "End Time - hh:mm:ss.ms")


def write(export: Export) -> None:
    """Write ``annotation/<video>.csv`` and ``trimmed_videos/<Class>/``.

    A line holds begin, end and a 1 in the column of the class. Trimmed files are numbered per video
    and class, from 1 in the order of time.
    """
    rows = segments.labelled(export, segments.read(export)).sort("video_id", "start_s")
    words = export.classes.words
    video = pl.col("video_id").map_elements(safe, pl.String)
    rows = rows.with_columns(video=video, kind=pl.col("word").str.replace_all("_", "-"))
    rows = rows.with_columns(k=pl.int_range(1, pl.len() + 1).over("video", "word"))
    for (name,), part in rows.group_by("video", maintain_order=True):
        lines = (
            (stamp(start), stamp(end), *(1 if one == word else None for one in words))
            for start, end, word in part.select("start_s", "end_s", "word").iter_rows()
        )
        export.table(f"annotation/{name}.csv", lines, header=(*_TIMES, *words))
    file = pl.format("trimmed_videos/{}/{}_{}_{}.mp4", "kind", "video", "kind", "k")
    rows = rows.with_columns(path=file)
    segments.media(export, rows, {"video": segments.copy_writer(export, "{}")})
    listed = pl.format("annotation/{}.csv", "video")
    shown = pl.when("has_video").then("path").otherwise(listed)
    export.keep(rows.with_columns(path=shown), key="segment_id")


def stamp(seconds: float) -> str:
    """Return ``hh:mm:ss.mmm``."""
    minutes, second = divmod(round(seconds * 1000), 60_000)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second // 1000:02d}.{second % 1000:03d}"


LAYOUT = Layout(
    "c-expr", "annotations and trimmed videos of compounds", write, order="compound7:c_expr",
    faces=False,
)  # fmt: skip
