"""Write the json lists of ExpLLM: expression, box, landmarks, head pose."""

from __future__ import annotations

from typing import Any

import polars as pl

from warehouse.geometry import CROP_SIZE
from warehouse.releases.layouts import affectnet, landmarks
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.schema import SPLITS


def write(export: Export) -> None:
    """Write ``<split>.json`` and ``<split>.txt``: json, folder, repeats.

    Boxes and landmarks are pixels of the picture written. There is no description, because no
    person has written one.
    """
    side = export.options.size or CROP_SIZE
    rows = export.labelled().with_columns(path=pl.format("images/{}.jpg", "stem"))
    scale = side / CROP_SIZE
    boxes = affectnet.boxes_of(rows, scale=scale, side=side)
    points = (landmarks.five(rows) * scale).round(2).tolist()
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for row, box, five in zip(rows.iter_rows(named=True), boxes, points, strict=True):
        entry = {"file_name": row["path"].removeprefix("images/"), "emo": row["word"],
                 "bbox": box, "landmark": five}  # fmt: skip
        pose = [row.get(name) for name in ("yaw", "pitch", "roll")]
        if None not in pose:
            entry["headpose"] = pose
        entries[row["split"]].append(entry)
    for split, listed in entries.items():
        if listed:
            export.json(f"{split}.json", listed)
            place = f"{export.absolute(f'{split}.json')},{export.absolute('images')},1"
            export.text(f"{split}.txt", [place])
    export.pictures(rows, size=side)
    export.write_folds(rows)


LAYOUT = Layout(
    "expllm", "json lists of expression, box and pose", write, order="expressions8:expllm"
)
