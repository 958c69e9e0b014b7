"""Write the jsonl files of Facial-R1: action units and label words."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import polars as pl

from warehouse.releases.layouts import unit_labels
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe


def write(export: Export) -> None:
    """Write ``<name>-{train,test}.jsonl``, ``train.yaml`` and ``config.json``.

    The description is empty, because no person has written one. Rows without an active unit are
    left out: the reader samples units of every row. ``config.json`` holds how often each unit and
    word occurs in each file.
    """
    rows = unit_labels.with_units(export, export.sets(export.labelled()))
    rows = export.leave_out(rows, pl.col("units").list.len() == 0, "no_active_unit")
    rows = rows.with_columns(path=pl.format("images/{}.jpg", "stem"))
    name = safe(str(export.contents["name"]))
    config: dict[str, Any] = {}
    for kind in ("train", "test"):
        part = rows.filter(pl.col("set") == kind)
        file = f"{name}-{kind}.jsonl"
        export.text(file, (json.dumps(_entry(row, name), ensure_ascii=False) for row in
                           part.iter_rows(named=True)))  # fmt: skip
        units = Counter(f"AU{unit}" for listed in part["units"] for unit in listed)
        config[file] = {"AUs": dict(units), "emotions": dict(Counter(part["word"].to_list()))}
    train = {"json_path": f"{name}-train.jsonl", "image_root": export.absolute("images"),
             "sampling_strategy": "all"}  # fmt: skip
    export.yaml("train.yaml", {"datasets": [train]})
    export.json("config.json", config)
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


def _entry(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "id": row["stem"],
        "dataset": name,
        "image": row["path"].removeprefix("images/"),
        "question": "",
        "AUs": [f"AU{unit}" for unit in row["units"]],
        "labels": [row["word"]],
        "description": "",
        "meta_info": {"au_by": row["au_by"], "face_id": row["face_id"]},
    }


LAYOUT = Layout("fea", "jsonl of action units and label words", write)
