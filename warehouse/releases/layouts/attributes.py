"""Write the EmoSet tree: a picture and an annotation file per face."""

from __future__ import annotations

from typing import Any

import polars as pl

from warehouse.label_sets import load
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_STEPS = [f"{step / 10:.1f}" for step in range(11)]
_EMPTY = ("scene", "human_action", "object")


def write(export: Export) -> None:
    """Write ``info.json``, one json per split, ``image/`` and ``annotation/``.

    ``emoset`` entries are ``[emotion, id, picture, annotation]``; ``u-emo`` leaves the id out and
    looks the classes up at the top of ``info.json``. The only attribute a release knows is the
    facial expression; readers take absent ones as unknown.
    """
    own = export.options.dialect == "u-emo"
    rows = export.labelled()
    folder = pl.col("word").map_elements(safe, pl.String)
    rows = rows.with_columns(
        path=pl.format("image/{}/{}.jpg", folder, "stem"),
        annotation=pl.format("annotation/{}/{}.json", folder, "stem"),
    )
    export.json("info.json", _info(export, top=own))
    words = dict(load("basic6").orders["emoset"].words)
    columns = ("word", "stem", "path", "annotation", "expression", "face_id", "split")
    entries: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for word, stem, path, annotation, index, _, split in rows.select(columns).iter_rows():
        entry = [word, stem, path, annotation]
        entries[split].append([entry[0], *entry[2:]] if own else entry)
        facts = {"image_id": stem, "emotion": word}
        shown = words.get(EXPRESSIONS[index]) if index is not None else None
        export.json(annotation, facts | ({"facial_expression": shown} if shown else {}))
    for split, name in _SPLITS.items():
        export.json(f"{name}.json", entries[split])
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


def _info(export: Export, *, top: bool) -> dict[str, Any]:
    emotions = _indexed(list(export.classes.words))
    info: dict[str, Any] = {"emotion": emotions}
    info["facial_expression"] = _indexed(list(load("basic6").orders["emoset"].words.values()))
    info |= {name: _indexed(_STEPS) for name in ("brightness", "colorfulness")}
    info |= {name: _indexed([]) for name in _EMPTY}
    return info | (emotions if top else {})


def _indexed(words: list[str]) -> dict[str, dict[str, Any]]:
    return {
        "label2idx": {word: number for number, word in enumerate(words)},
        "idx2label": {str(number): word for number, word in enumerate(words)},
    }


LAYOUT = Layout(
    "attributes", "the EmoSet tree of pictures and attributes", write, dialects=("emoset", "u-emo")
)
