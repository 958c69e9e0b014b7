"""Write the csv files of AffectNet: box, landmarks, class, mood."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from warehouse.geometry import CROP_SIZE, boxes_in_crops
from warehouse.releases.layouts import landmarks
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import array_of
from warehouse.releases.schema import SPLITS

_HEADER = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
    "expression", "valence", "arousal",
)  # fmt: skip
_UNCERTAIN, _NO_FACE = 9, 10
_UNSAID = -2
"""AffectNet's own value where no valence or arousal was given."""

_EYES = ((range(36, 42), 0), (range(42, 48), 1))
"""iBUG points of each eye, and the place of that eye among the five keypoints."""

_PER_FOLDER = 1000


def write(export: Export) -> None:
    """Write ``training.csv``, ``validation.csv`` and the pictures.

    Boxes and landmarks are pixels of the written picture. Without 68 points the points of each eye
    stand on the detector's eye, and the others are ``nan``. ``kaggle`` has class folders and a csv
    of pictures and classes from 1 instead.
    """
    if export.options.dialect == "kaggle":
        _kaggle(export)
        return
    judged = export.classes.label(export.sets(export.faces))
    is_open = pl.col("left_out").eq_missing("open_set")
    export.leave_out(judged.filter(~is_open), pl.col("left_out"), None)
    rows = judged.filter(is_open | pl.col("left_out").is_null()).with_row_index("row")
    none_here = _not_faces(export)
    code = pl.when(pl.col("face_id").is_in(none_here)).then(_NO_FACE).otherwise(_UNCERTAIN)
    folder = (pl.col("row") // _PER_FOLDER + 1).cast(pl.String)
    rows = rows.with_columns(
        number=pl.when(is_open).then(code).otherwise("number"),
        file=pl.format("{}/{}.jpg", folder, "stem"),
    ).with_columns(path=pl.format("images/{}", "file"))
    side = export.options.size or CROP_SIZE
    scale = side / CROP_SIZE
    rows = rows.with_columns(
        box=pl.Series(boxes_of(rows, scale=scale, side=side), dtype=pl.List(pl.Int64)),
        points=pl.Series(_points(export, rows, scale=scale), dtype=pl.String),
    )
    for name, wanted in (("training", "train"), ("validation", "test")):
        part = rows.filter(pl.col("set") == wanted)
        export.table(f"{name}.csv", map(_line, part.iter_rows(named=True)), header=_HEADER)
    export.pictures(rows, size=side)
    export.write_folds(rows)


def _kaggle(export: Export) -> None:
    rows = export.labelled()
    folder = pl.format("class{}", pl.col("number").cast(pl.String).str.zfill(3))
    rows = rows.with_columns(
        path=pl.format("{}_class/{}/{}.jpg", "split", folder, "stem"),
    )
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.height:
            lines = part.select("path", "number").iter_rows()
            export.table(f"{split}.csv", lines, header=("image", "emotion"))
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    mood = (_UNSAID if row[name] is None else float(row[name]) for name in ("valence", "arousal"))
    return (row["file"], *row["box"], row["points"], row["number"], *mood)


def boxes_of(rows: pl.DataFrame, *, scale: float, side: int) -> list[list[int]]:
    """Return ``x y w h`` in the picture; all of it where no box is known."""
    whole = [0, 0, side, side]
    if "bbox" not in rows.columns:
        return [whole] * rows.height
    placed = scale * boxes_in_crops(array_of(rows["transform"], 2, 3), array_of(rows["bbox"], 4))
    known = ~np.isnan(placed).any(axis=1)
    placed[~known] = whole
    low = np.clip(np.rint(placed[:, :2]), 0, side - 1)
    high = np.clip(np.rint(placed[:, :2] + placed[:, 2:]), 1, side)
    boxes: list[list[int]] = np.hstack([low, np.maximum(high - low, 1)]).astype(int).tolist()
    return boxes


def _points(export: Export, rows: pl.DataFrame, *, scale: float) -> list[str]:
    whole = landmarks.of_callable(export, rows)
    five = landmarks.five(rows)
    found = []
    for row, face in enumerate(rows["face_id"]):
        points = whole.get(face)
        if points is None:
            points = np.full((landmarks.POINTS, 2), np.nan)
            for places, eye in _EYES:
                points[list(places)] = five[row, eye]
        found.append(";".join(f"{value:.2f}" for value in (points * scale).ravel()))
    return found


def _not_faces(export: Export) -> list[str]:
    """Return faces that most of their open-set votes call no face."""
    votes = export.votes()
    if votes.is_empty():
        return []
    said = votes.select("face_id", answer="expressions").explode("answer")
    counted = said.group_by("face_id").agg(
        none=(pl.col("answer") == "not_a_face").sum(), other=(pl.col("answer") == "unknown").sum()
    )
    return counted.filter(pl.col("none") > pl.col("other"))["face_id"].to_list()


LAYOUT = Layout(
    "affectnet",
    "AffectNet csv files with box, landmarks, class, valence and arousal",
    write,
    order="expressions8:affectnet8",
    orders={"kaggle": "expressions8:affectnet_kaggle"},
    dialects=("affectnet", "kaggle"),
)
