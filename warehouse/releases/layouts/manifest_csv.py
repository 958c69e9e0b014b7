"""Write one csv of absolute paths and labels, with a class map."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.schema import SPLITS

_HEADER = ("image_path", "label_name", "label_id")


def write(export: Export) -> None:
    """Write ``labels_all.csv``, one csv per split and ``class_map_fer.json``."""
    rows = export.labelled().with_columns(path=pl.format("images/{}{}", "stem", "suffix"))
    root = export.absolute("")
    lines = rows.with_columns(image_path=pl.lit(f"{root.rstrip('/')}/") + pl.col("path"))
    export.table(
        "labels_all.csv", lines.select("image_path", "word", "number").iter_rows(), header=_HEADER
    )
    for split in SPLITS:
        part = lines.filter(pl.col("split") == split)
        if part.height:
            found = part.select("image_path", "word", "number").iter_rows()
            export.table(f"labels_{split}.csv", found, header=_HEADER)
    export.json("class_map_fer.json", export.classes.numbers)
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


LAYOUT = Layout("manifest", "a csv of absolute paths, label names and numbers", write)
