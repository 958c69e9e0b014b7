"""Write the captions and action units that SynFER's readers open."""

from __future__ import annotations

from typing import Any

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.unit_labels import with_units
from warehouse.vocabulary import ACTION_UNITS

_MIDDLE = (
    1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32,
    38, 39,
)  # fmt: skip
_SIDES = 14
"""Units of one side (L1 R1 ... R14), which no source of ours tells apart: always 0."""


def write(export: Export) -> None:
    """Write ``captions.json``, ``fau_labels.json``, ``au.json`` and pictures.

    A caption names the expression and the active units. It is a machine's text, so it is written
    only with ``--machine-text``; otherwise ``captions.json`` is empty.
    """
    rows = with_units(export, export.labelled())
    rows = export.leave_out(rows, pl.col("au_by").is_null(), "no_action_units")
    rows = rows.with_columns(path=pl.format("images/{}{}", "stem", "suffix"))
    names = {unit.number: unit.name for unit in ACTION_UNITS}
    captions: list[dict[str, str]] = []
    flags: dict[str, str] = {}
    values: dict[str, Any] = {}
    for path, word, units, au in rows.select("path", "word", "units", "au").iter_rows():
        file = path.removeprefix("images/")
        shown = ", ".join(names[unit] for unit in units) or "no active action unit"
        captions.append({file: f"A face that shows {word}: {shown}."})
        bits = [int(unit in units) for unit in _MIDDLE] + [0] * _SIDES
        flags[file] = " ".join(map(str, bits))
        values[file] = list(au or [])
    allowed = export.options.machine_text
    if not allowed:
        export.notes.append("captions are empty: machine-written text needs --machine-text")
    export.json("captions.json", captions if allowed else [])
    export.json("captions_source.json", {"author_kind": "machine", "author": "template"})
    export.json("fau_labels.json", flags)
    export.json("au.json", values)
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


LAYOUT = Layout("text-au", "captions and action units for synthesis", write)
