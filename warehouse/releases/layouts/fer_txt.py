"""Write text folds: ids, labels, sizes, boxes and landmarks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from warehouse.geometry import CROP_SIZE
from warehouse.releases.layouts import landmarks
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.schema import SPLITS

_FOLDERS = {"train": "train", "validation": "valid", "test": "test"}


def write(export: Export) -> None:
    """Write ``folds/wsol-done-right-splits/<name>/`` and 224 px pictures.

    Sizes and boxes name the last pixel (223), as the reader's own files do. 136 ``inf`` stand where
    no landmarks are known.
    """
    side = export.options.size or CROP_SIZE
    rows = export.labelled().with_columns(path=pl.format("images/{}.jpg", "stem"))
    name = safe(str(export.contents["name"]))
    root = f"folds/wsol-done-right-splits/{name}"
    points = landmarks.of_callable(export, rows)
    export.yaml(f"{root}/class_id.yaml", export.classes.numbers)
    counts = dict(rows.filter(pl.col("split") == "train").group_by("word").len().iter_rows())
    total, k = sum(counts.values()), len(export.classes.words)
    weights = {
        word: round(total / (k * counts[word]), 6) if counts.get(word) else 1.0
        for word in export.classes.words
    }
    export.yaml(f"{root}/per_class_weight.yaml", weights)
    last = side - 1
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        paths = part["path"].to_list()
        folder = f"{root}/{_FOLDERS[split]}"
        export.text(f"{folder}/image_ids.txt", paths)
        labels = zip(paths, part["number"], strict=True)
        export.text(f"{folder}/class_labels.txt", (f"{path},{label}" for path, label in labels))
        export.text(f"{folder}/image_sizes.txt", (f"{path},{last},{last}" for path in paths))
        export.text(f"{folder}/localization.txt", (f"{path},0,0,{last},{last}" for path in paths))
        export.text(f"{folder}/landmarks.txt", _landmarks(part, points, scale=side / CROP_SIZE))
    export.pictures(rows, size=side)
    export.write_folds(rows)


def _landmarks(part: pl.DataFrame, points: dict[str, np.ndarray], *, scale: float) -> Iterator[str]:
    unknown = ",".join(["inf"] * (2 * landmarks.POINTS))
    for face, path in part.select("face_id", "path").iter_rows():
        found = points.get(face)
        if found is None:
            yield f"{path},{unknown}"
        else:
            yield f"{path}," + ",".join(f"{value:.6g}" for value in (found * scale).ravel())


LAYOUT = Layout(
    "fer-txt", "text folds with landmarks for interpretable FER", write, order="basic7:fold7"
)
