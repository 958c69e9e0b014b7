"""Write the lists and pictures of RAF-DB, with noisy lists."""

from __future__ import annotations

import math
from random import Random

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.vocabulary import canonical

SIZE = 100
"""Side of RAF-DB's aligned pictures."""

_NOISE = (10, 20, 30)
"""Percentages of the training rows whose label a noisy list changes."""


def write(export: Export) -> None:
    """Write the layout.

    ``raf``: ``EmoLabel/list_patition_label.txt`` and ``Image/aligned/<name>_aligned.jpg``.
    ``latent-ofer``: ``EmoLabel/label.txt``, ``aligned/<name>_aligned.jpg`` and
    ``Images/<name>.JPG``. Beside them, for both: ``open.txt`` with 0 for faces outside the
    classes, and ``noise<p>.txt`` with the dissent of real raters.
    """
    latent = export.options.dialect == "latent-ofer"
    judged = export.classes.label(export.sets(export.faces))
    is_open = pl.col("left_out").eq_missing("open_set")
    export.leave_out(judged.filter(~is_open), pl.col("left_out"), None)
    used = judged.filter(is_open | pl.col("left_out").is_null())
    used = used.sort("set", "split", "face_id", descending=[True, False, False]).with_columns(
        place=pl.int_range(1, pl.len() + 1).over("set")
    )
    used = used.with_columns(
        name=pl.format("{}_{}", "set", pl.col("place").cast(pl.String).str.zfill(5)),
        number=pl.when(is_open).then(0).otherwise("number"),
    )
    rows = used.filter(~is_open)
    line = pl.format("{}.jpg {}", "name", "number")
    listing = "EmoLabel/label.txt" if latent else "EmoLabel/list_patition_label.txt"
    export.text(listing, rows.select(line).to_series())
    export.text("EmoLabel/open.txt", used.filter(is_open).select(line).to_series())
    _noise(export, rows)
    folder = "aligned" if latent else "Image/aligned"
    aligned = pl.format(f"{folder}/{{}}_aligned.jpg", "name")
    used = used.with_columns(path=aligned)
    export.pictures(used, size=export.options.size or SIZE)
    if latent:
        whole = used.with_columns(path=pl.format("Images/{}.JPG", "name"))
        export.pictures(whole, size=export.options.size, keep=False)
    export.write_folds(used)


def _noise(export: Export, rows: pl.DataFrame) -> None:
    """Write the list with labels replaced by one rater's dissenting vote.

    Only training rows change, and only to what a person answered about that very face. A list is
    written if so many training rows have dissent.
    """
    votes = export.votes()
    train = rows.filter(pl.col("set") == "train")
    if votes.is_empty() or train.is_empty():
        return
    own = dict(train.select("face_id", "word").iter_rows())
    numbers, of = export.classes.numbers, export.classes.of
    dissent: dict[str, list[int]] = {}
    for face, answers in votes.sort("face_id", "rater_id").select(
        "face_id", "expressions"
    ).iter_rows():  # fmt: skip
        word = of.get(canonical(answers[0]), "") if answers and len(answers) == 1 else ""
        if face in own and word and word != own[face]:
            dissent.setdefault(face, []).append(numbers[word])
    order = sorted(dissent)
    Random(0).shuffle(order)
    for percent in _NOISE:
        count = math.ceil(len(own) * percent / 100)
        if count > len(order):
            continue
        changed = {face: dissent[face][0] for face in order[:count]}
        export.text(
            f"EmoLabel/noise{percent}.txt",
            (
                f"{name}.jpg {changed.get(face, number)}"
                for face, name, number in rows.select("face_id", "name", "number").iter_rows()
            ),
        )


LAYOUT = Layout(
    "raf",
    "RAF-DB lists and aligned pictures",
    write,
    order="basic7:raf",
    dialects=("raf", "latent-ofer"),
)
