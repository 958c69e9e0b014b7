"""Write FER+ vote counts and 48 px gray pictures."""

from __future__ import annotations

from collections import Counter

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import ANSWERS

SIZE = 48
_FOLDERS = {"train": "FER2013Train", "validation": "FER2013Valid", "test": "FER2013Test"}
_USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
_HEADER = (
    "Usage", "Image name", "neutral", "happiness", "surprise", "sadness", "anger", "disgust",
    "fear", "contempt", "unknown", "NF",
)  # fmt: skip


def write(export: Export) -> None:
    """Write ``FER2013{Train,Valid,Test}/label.csv`` and ``fer2013new.csv``.

    Counts are votes. A vote that names several expressions counts for each of them. Faces without
    any vote are left out; ties stay, because counts carry them.
    """
    counted = _counts(export)
    rows = export.leave_out(export.faces, ~pl.col("face_id").is_in(list(counted)), "no_votes").sort(
        pl.col("split").replace_strict({name: n for n, name in enumerate(SPLITS)}), "face_id"
    )
    number = pl.int_range(pl.len()).cast(pl.String).str.zfill(7)
    rows = rows.with_columns(name=pl.format("fer{}.png", number))
    side = export.options.size or SIZE
    lines = []
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.is_empty():
            continue
        named = [
            (name, *(counted[face][answer] for answer in ANSWERS))
            for face, name in part.select("face_id", "name").iter_rows()
        ]
        box = f"(0, 0, {side}, {side})"
        table = ((name, box, *counts) for name, *counts in named)
        export.table(f"{_FOLDERS[split]}/label.csv", table)
        lines += [(_USAGES[split], *row) for row in named]
    export.table("fer2013new.csv", lines, header=_HEADER)
    folder = pl.col("split").replace_strict(_FOLDERS, return_dtype=pl.String)
    rows = rows.with_columns(path=pl.format("{}/{}", folder, "name"))
    export.pictures(rows, size=side, gray=True)
    export.write_folds(rows)


def _counts(export: Export) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    several = 0
    for face, answers in export.votes().select("face_id", "expressions").iter_rows():
        if answers:
            found.setdefault(face, Counter()).update(answers)
            several += len(answers) > 1
    if several:
        export.notes.append(f"{several} votes named several expressions and count for each")
    return found


LAYOUT = Layout("ferplus", "FER+ vote counts and 48 px gray pictures", write)
