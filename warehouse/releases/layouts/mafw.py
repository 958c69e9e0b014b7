"""Write the clip folders and lists of MAFW."""

from __future__ import annotations

import polars as pl

from warehouse.label_sets import load
from warehouse.releases.layouts import clip_frames
from warehouse.releases.layouts.core import Export, Layout


def write(export: Export) -> None:
    """Write frames, word lists, and csv files in the alphabetical order."""
    rows = clip_frames.labelled(export).with_columns(
        name=pl.col("place").cast(pl.String).str.zfill(5)
    )
    rows = rows.with_columns(folder=pl.format("frames/{}", "name"))
    alphabetical = load("mafw11").orders["mafw_b"]
    numbers = {alphabetical.words[word]: n for word, n in alphabetical.numbers.items()}
    for fold, name, part in clip_frames.sets(export, rows):
        folder = f"label/no_caption/set_{fold}"
        lines = part.select(pl.format("{}.mp4 {}", "name", "word")).to_series()
        export.text(f"{folder}/{name}.txt", lines)
        table = [
            (clip, numbers.get(word)) for clip, word in part.select("name", "word").iter_rows()
        ]
        export.table(f"{folder}/{name}.csv", table, header=("video_name", "labels"))
    clip_frames.write_sources(export, rows)
    export.clip_frames(
        rows, folder="folder", name=lambda n: f"{n + 1:04d}.png", size=export.options.size
    )


LAYOUT = Layout("mafw", "clip folders and lists of MAFW", write, order="mafw11:mafw_a")
