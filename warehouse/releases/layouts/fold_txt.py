"""Write text folds of clips: path, class number, transcript."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from warehouse.releases.layouts import segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.layouts.folds import assign

_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def write(export: Export) -> None:
    """Write ``folds/<name>/split-<k>/`` and ``Videos/<subject>/<name>.mp4``.

    A path holds no comma; the transcript is the rest of the line. ``split-0`` is the release's own
    split; with ``--folds K`` the split k leaves out the group k + 1.
    """
    rows = segments.labelled(export, segments.read(export))
    rows = segments.need(export, rows, "video")
    subject = pl.col("subject_id").map_elements(safe, pl.String)
    rows = rows.with_columns(path=pl.format("Videos/{}/{}.mp4", subject, "name"))
    lists(export, rows)
    segments.media(export, rows, {"video": segments.copy_writer(export, "{}")})
    export.keep(rows, key="segment_id")


def lists(export: Export, rows: pl.DataFrame) -> None:
    """Write ``class_id.yaml`` and the lists of every split.

    Args:
        rows: ``path, number, text, split``.
    """
    name = safe(str(export.contents["name"]))
    for number, parts in _divided(export, rows):
        folder = f"folds/{name}/split-{number}"
        export.yaml(f"{folder}/class_id.yaml", export.classes.numbers)
        for kind, part in parts.items():
            export.text(f"{folder}/{kind}.txt", part.select(_line()).to_series())


def _line() -> pl.Expr:
    return pl.format("{},{},{}", "path", "number", "text")


def _divided(export: Export, rows: pl.DataFrame) -> Iterator[tuple[int, dict[str, pl.DataFrame]]]:
    if export.options.folds is None:
        yield 0, dict(segments.by_split(rows, _SPLITS))
        return
    named = rows.with_columns(face_id="segment_id", duplicate_of=pl.lit(None, pl.String))
    divided = rows.with_columns(assign(named, export.options.folds))
    count = int(str(divided["fold"].max()))
    for fold in range(1, count + 1):
        held = pl.col("fold") == fold
        following = pl.col("fold") == (fold % count + 1 if count > 2 else 0)
        yield (
            fold - 1,
            {
                "train": divided.filter(~held & ~following),
                "val": divided.filter(following),
                "test": divided.filter(held),
            },
        )


LAYOUT = Layout(
    "fold-txt", "text folds of clips and transcripts", write, order="basic7:fold7", faces=False
)
