"""Write the split lists of MAE-DFER and DFER-CLIP."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts import clip_frames
from warehouse.releases.layouts.core import Export, Layout


def write(export: Export) -> None:
    """Write frames and ``<folder> <number>`` lists without a header.

    ``dfer-clip`` adds the number of frames and counts classes from 1.
    """
    counted = export.options.dialect == "dfer-clip"
    rows = clip_frames.labelled(export).with_columns(
        folder=pl.format("frames/{}", pl.col("place").cast(pl.String).str.zfill(5))
    )
    line = pl.format("{} {}", pl.lit(export.absolute("")) + pl.col("folder"), "number")
    if counted:
        length = pl.col("times").list.len()
        number = pl.col("number") + 1 - export.classes.base
        line = pl.format("{} {} {}", pl.lit(export.absolute("")) + pl.col("folder"), length, number)
    for fold, name, part in clip_frames.sets(export, rows):
        lines = part.select(line).to_series()
        single = export.options.folds is None
        suffix = "txt" if counted else "csv"
        export.text(f"{name}.{suffix}" if single else f"set_{fold}/{name}.{suffix}", lines)
        if single and name == "test" and not counted:
            export.text("val.csv", lines)
    clip_frames.write_sources(export, rows)
    export.clip_frames(
        rows, folder="folder", name=lambda n: f"{n + 1:05d}.jpg", size=export.options.size
    )


LAYOUT = Layout(
    "mae-dfer",
    "split lists of frame folders",
    write,
    order="basic7:dfew0",
    dialects=("mae-dfer", "dfer-clip"),
)
