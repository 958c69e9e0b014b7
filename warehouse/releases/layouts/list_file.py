"""Write ``<split>.txt`` with one picture and class number per line."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.schema import SPLITS


def write(export: Export) -> None:
    """Write the layout: ``images/<face>.jpg <number>``, one blank, no header."""
    rows = export.labelled().with_columns(path=pl.format("images/{}.jpg", "stem"))
    line = pl.format("{} {}", "path", "number")
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.height:
            export.text(f"{split}.txt", part.select(line).to_series())
    if export.options.folds is not None:
        folded = export.folded(rows)
        for fold in sorted(folded["fold"].unique()):
            for name, chosen in (
                ("train", pl.col("fold") != fold),
                ("test", pl.col("fold") == fold),
            ):
                lines = folded.filter(chosen).select(line).to_series()
                export.text(f"fold_{fold}_{name}.txt", lines)
    export.pictures(rows, size=export.options.size)


LAYOUT = Layout(
    "list",
    "a text file of pictures and class numbers per split",
    write,
    order="basic7:affectnet7",
    orders={"affectnet8": "expressions8:affectnet8", "ferplus": "expressions8:ferplus"},
    dialects=("affectnet7", "affectnet8", "ferplus"),
)
