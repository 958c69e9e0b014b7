"""Write the clip folders and lists of DFEW."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts import clip_frames
from warehouse.releases.layouts.core import Export, Layout

_ROOT = "Clip/clip_224x224_16f"


def write(export: Export) -> None:
    """Write frames, the lists of three readers and the annotations.

    Numbers count from 1 with five digits. Clips whose votes tie are left out. The annotations hold
    tenths of the votes, because readers divide them by ten.
    """
    rows = clip_frames.labelled(export).with_columns(
        folder=pl.format(_ROOT + "/{}", pl.col("place").cast(pl.String).str.zfill(5))
    )
    for fold, name, part in clip_frames.sets(export, rows):
        listed = [(place, number) for place, number in part.select("place", "number").iter_rows()]
        export.table(
            f"EmoLabel_DataSplit/{name}_single-labeled/set_{fold}.csv",
            listed,
            header=("order", "label"),
        )
        from_zero = [(f"{place:05d}", number - export.classes.base) for place, number in listed]
        folder = f"EmoLabel_DataSplit/{name}(single-labeled)"
        export.table(f"{folder}/{name}_set_{fold}.csv", from_zero, header=("video_name", "label"))
        plain = [(f"{place:05d}", number) for place, number in listed]
        export.table(f"{folder}/set_{fold}.csv", plain, header=("video_name", "label"))
    header = [
        *(f"{number}{word}" for word, number in export.classes.numbers.items()), "order", "label",
    ]  # fmt: skip
    lines = zip(
        clip_frames.counts(export, rows).tolist(), rows["place"], rows["number"], strict=True
    )
    export.table(
        "Annotation/annotation.csv",
        ((*votes, place, number) for votes, place, number in lines),
        header=header,
    )
    clip_frames.write_sources(export, rows)
    export.clip_frames(
        rows, folder="folder", name=lambda n: f"{n + 1:05d}.jpg", size=export.options.size
    )


LAYOUT = Layout("dfew", "clip folders and lists of DFEW", write, order="basic7:dfew")
