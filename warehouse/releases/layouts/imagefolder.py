"""Write ``<split>/<class>/<face>.jpg``, as torchvision and Keras read it.

Such readers number the folders that they see, split by split. A class that one split lacks would
shift the numbers of that split alone, so classes missing in any split are left out and counted,
unless empty folders are asked for.
"""

from __future__ import annotations

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

_SPLITS = {"u-emo": {"train": "train", "validation": "val", "test": "test"}}


def write(export: Export) -> None:
    """Write the layout."""
    rows = _placed(export, export.labelled())
    sets = sorted({name for names in rows["sets"] for name in names})
    if export.options.all_classes:
        for name in sets:
            for word in export.classes.words:
                export.path(f"{name}/{safe(word)}/any")
    else:
        found = {
            name: set(rows.filter(pl.col("sets").list.contains(name))["word"]) for name in sets
        }
        everywhere = set.intersection(*found.values()) if found else set()
        if not everywhere and rows.height:
            raise ReleaseError(
                "No class occurs in every split",
                got=", ".join(f"{name}: {len(words)} classes" for name, words in found.items()),
                hint="use --all-classes for readers that take empty folders, or another layout",
            )
        rows = export.leave_out(
            rows, ~pl.col("word").is_in(sorted(everywhere)), "class_missing_in_a_split"
        )
    file = pl.format("{}/{}{}", pl.col("word").map_elements(safe, pl.String), "stem", "suffix")
    rows = rows.with_columns(file=file).with_columns(
        path=pl.struct("sets", "file").map_elements(
            lambda row: [f"{name}/{row['file']}" for name in row["sets"]],
            return_dtype=pl.List(pl.String),
        )
    )
    export.pictures(rows, size=export.options.size)


def _placed(export: Export, rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``sets``: the folders of a row, by its split or one per fold."""
    if export.options.folds is None:
        names = _SPLITS.get(export.options.dialect or "", {})
        return rows.with_columns(sets=pl.concat_list(pl.col("split").replace(names)))
    folded = export.folded(rows)
    count = int(str(folded["fold"].max() or 0))
    sets = [
        [f"fold_{k}/{'test' if k == fold else 'train'}" for k in range(1, count + 1)]
        for fold in folded["fold"]
    ]
    return folded.with_columns(sets=pl.Series(sets, dtype=pl.List(pl.String)))


LAYOUT = Layout(
    "imagefolder",
    "class folders",
    write,
    order="expressions8",
    orders={"ekman6": "basic6:ekman6", "u-emo": "expressions8"},
    dialects=("torchvision", "u-emo", "ekman6"),
)
