"""Write what people say of themselves beside what others see in them."""

from __future__ import annotations

from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS

_READERS = 3


def write(export: Export) -> None:
    """Write ``self-other.csv`` in the shape of WRIME, and the pictures.

    Columns are ``self_<e>``, ``other<k>_<e>`` of up to three observers and ``mean_others_<e>``: 1
    where a vote names the expression, else 0. Only faces with a self-report and at least one
    observer are written.

    Raises:
        ReleaseError: no self-report is released.
    """
    votes = export.votes()
    kinds = pl.col("rater_kind") == "self"
    own = votes.filter(kinds) if "rater_kind" in votes.columns else votes.clear()
    if own.is_empty():
        raise ReleaseError(
            "This version holds no self-reports",
            got="no vote of the rater kind self",
            hint="ask people about their own faces and build a new version",
        )
    others = votes.filter(~kinds).sort("face_id", "rater_id")
    reports = _flags(own.sort("face_id", "rater_id"))
    observed = _flags(others)
    rows = export.leave_out(export.faces, ~pl.col("face_id").is_in(list(reports)), "no_self_report")
    rows = export.leave_out(rows, ~pl.col("face_id").is_in(list(observed)), "no_observer")
    rows = rows.with_columns(path=pl.format("images/{}{}", "stem", "suffix"))
    readers = [f"other{k}" for k in range(1, _READERS + 1)]
    header = ["face_id", "subject_id", "file", "split"]
    for who in ("self", *readers, "mean_others"):
        header += [f"{who}_{name}" for name in EXPRESSIONS]
    lines = [
        (face, subject, path, split, *reports[face][0], *_observers(observed[face]),
         len(observed[face]))
        for split in SPLITS
        for face, subject, path in rows.filter(pl.col("split") == split)
        .select("face_id", "subject_id", "path").iter_rows()
    ]  # fmt: skip
    export.table("self-other.csv", lines, header=(*header, "n_others"))
    export.pictures(rows, size=export.options.size)


def _flags(votes: pl.DataFrame) -> dict[str, list[list[int]]]:
    """Return 0 or 1 per expression, a list per vote of each face."""
    found: dict[str, list[list[int]]] = {}
    for face, answers in votes.select("face_id", "expressions").iter_rows():
        if answers:
            found.setdefault(face, []).append([int(name in answers) for name in EXPRESSIONS])
    return found


def _observers(flags: list[list[int]]) -> list[Any]:
    cells: list[Any] = []
    for k in range(_READERS):
        cells += flags[k] if k < len(flags) else [None] * len(EXPRESSIONS)
    return cells + [sum(column) / len(flags) for column in zip(*flags, strict=True)]


LAYOUT = Layout("self-other", "self-reports beside observers' votes, as WRIME", write)
