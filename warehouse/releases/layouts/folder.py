"""Write ``<split>/<face>.png`` and ``metadata.jsonl`` with every column."""

from __future__ import annotations

import json

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import without_nan
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS


def write(export: Export) -> None:
    """Write the layout."""
    rows = export.faces
    rows = rows.with_columns(
        path=pl.format("{}/{}{}", "split", "stem", "suffix"),
        expression=pl.col("expression").replace_strict(
            dict(enumerate(EXPRESSIONS)), default=None, return_dtype=pl.String
        ),
    )
    columns = [name for name in rows.columns if name not in ("split", "stem", "suffix", "path")]
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.height:
            export.text(f"{split}/metadata.jsonl", map(_line, part.select(
                pl.format("{}{}", "stem", "suffix").alias("file_name"), *columns
            ).iter_rows(named=True)))  # fmt: skip
    export.pictures(rows, size=export.options.size)


def _line(row: dict[str, object]) -> str:
    try:
        return json.dumps(row, allow_nan=False)
    except ValueError:
        return json.dumps(without_nan(row))


LAYOUT = Layout("folder", "pictures and all columns, as `datasets` reads imagefolder", write)
