"""Write the clip folders and lists of FERV39k."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts import clip_frames
from warehouse.releases.layouts.core import Export, Layout

_ROOT = "2_ClipsforFaceCrop"
_SCENE = "Risorius"


def write(export: Export) -> None:
    """Write frames below scene and class, and the lists of two readers."""
    rows = clip_frames.labelled(export).with_columns(
        name=pl.format(_SCENE + "/{}/{}", "word", pl.col("place").cast(pl.String).str.zfill(4))
    )
    rows = rows.with_columns(folder=pl.format(_ROOT + "/{}", "name"))
    for fold, name, part in clip_frames.sets(export, rows):
        suffix = "" if fold == 1 else f"_{fold}"
        lines = part.select(pl.format("{} {}", "name", "word")).to_series()
        export.text(f"All_scenes/{name}_All{suffix}.csv", lines)
        table = part.select("name", "number").iter_rows()
        export.table(f"Annotation/{name}{suffix}.csv", table, header=("path", "id"))
    clip_frames.write_sources(export, rows)
    export.clip_frames(
        rows, folder="folder", name=lambda n: f"{n + 1:02d}.jpg", size=export.options.size
    )


LAYOUT = Layout("ferv39k", "clip folders and lists of FERV39k", write, order="basic7:ferv39k")
