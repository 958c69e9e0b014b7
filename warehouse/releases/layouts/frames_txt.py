"""Write the trees of Aff-Wild2 and ABAW: a line of labels per video frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.layouts.unit_labels import coded

SIZE = 112
"""Side of the pictures in ``cropped_aligned``."""

_UNITS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
_FOLDERS = {"train": "Train_Set", "test": "Validation_Set"}
_MISSING, _MISSING_MOOD = -1, -5
"""Values of the readers where no person gave a label."""


def write(export: Export) -> None:
    """Write ``cropped_aligned/<video>/<nnnnn>.jpg`` and ``annotations/``.

    Pictures carry the number of their frame, from 1. The text files of ``EXPR_Set``, ``VA_Set`` and
    ``AU_Set`` begin with a header and have a line per frame up to the last picture. Frames between
    sampled faces have no label: nothing is interpolated. Units are those that people coded. If a
    video shows several subjects, each has a folder of its own, as in Aff-Wild2.

    Raises:
        ReleaseError: the version holds no frame numbers.
    """
    rows = _placed(export)
    rows = export.classes.label(rows)
    units = coded(export)
    rows = rows.with_columns(
        pl.col("number").fill_null(_MISSING),
        path=pl.format("cropped_aligned/{}/{}.jpg", "trial", "picture"),
    )
    labelled = (pl.col("number") != _MISSING) | pl.col("valence").is_not_null()
    if not rows.filter(labelled | pl.col("face_id").is_in(list(units))).height:
        rows = export.leave_out(rows, pl.lit(True), "no_label")
    unlabelled = rows["left_out"].drop_nulls().value_counts(sort=True)
    for reason, count in unlabelled.iter_rows():
        export.notes.append(f"{count} pictures carry the expression -1: {reason}")
    for (_, kind), part in rows.sort("trial", "frame").group_by(
        "trial", "set", maintain_order=True
    ):
        _annotations(export, part, folder=_FOLDERS[str(kind)], units=units)
    export.pictures(rows, size=export.options.size or SIZE)
    export.write_folds(rows)


def _placed(export: Export) -> pl.DataFrame:
    """Return one face per trial and frame with ``trial, picture, set``."""
    rows = export.sets(export.with_frames(export.faces))
    several = pl.col("subject_id").n_unique().over("video_id") > 1
    rows = rows.with_columns(
        trial=pl.when(several)
        .then(pl.format("{}_{}", "video_id", "subject_id"))
        .otherwise("video_id")
        .map_elements(safe, pl.String),
        picture=(pl.col("frame") + 1).cast(pl.String).str.zfill(5),
    )
    # Subjects of a video may be unnamed: then its tracks count instead.
    crowded = pl.struct("trial", "frame").is_duplicated().any().over("trial")
    track = pl.col("track_id").map_elements(safe, pl.String)
    rows = rows.with_columns(trial=pl.when(crowded).then(track).otherwise("trial"))
    rows = rows.sort("trial", "frame", "face_id")
    again = ~pl.struct("trial", "frame").is_first_distinct()
    return export.leave_out(rows, again, "second_face_in_frame")


def _annotations(
    export: Export, rows: pl.DataFrame, *, folder: str, units: dict[str, list[int]]
) -> None:
    trial = rows["trial"][0]
    faces = {row["frame"]: row for row in rows.iter_rows(named=True)}
    length = max(faces) + 1
    expressions = ",".join(export.classes.words)
    mood = "valence,arousal"
    actions = ",".join(f"AU{unit}" for unit in _UNITS)

    def lines(header: str, cell: Any, missing: str) -> Iterator[str]:
        yield header
        for frame in range(length):
            yield cell(faces[frame]) if frame in faces else missing

    def numbers(row: dict[str, Any]) -> str:
        return str(row["number"])

    def moods(row: dict[str, Any]) -> str:
        values = (row["valence"], row["arousal"])
        return f"{values[0]:.6g},{values[1]:.6g}" if None not in values else no_mood

    def actives(row: dict[str, Any]) -> str:
        if (active := units.get(row["face_id"])) is None:
            return no_unit
        return ",".join(str(int(unit in active)) for unit in _UNITS)

    no_mood = f"{_MISSING_MOOD},{_MISSING_MOOD}"
    no_unit = ",".join([str(_MISSING)] * len(_UNITS))
    for name, header, cell, missing in (
        ("EXPR_Set", expressions, numbers, str(_MISSING)),
        ("VA_Set", mood, moods, no_mood),
        ("AU_Set", actions, actives, no_unit),
    ):
        export.text(f"annotations/{name}/{folder}/{trial}.txt", lines(header, cell, missing))


AFFWILD2 = Layout("affwild2", "a line of labels per video frame", write, order="basic7:affwild7")
ABAW = Layout("abaw", "as affwild2, with the class Other", write, order="basic7:abaw8")
