"""Refuse rows that consent or a licence forbids to export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from warehouse import consent
from warehouse.errors import ReleaseError
from warehouse.licences import permits
from warehouse.releases import eligibility
from warehouse.storage import tables

if TYPE_CHECKING:
    from warehouse.releases.layouts.core import Export


def without_consent(export: Export, rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out rows whose consent no longer holds, by the tables of the home."""
    if not tables.parts(export.home, "videos"):
        return rows
    stated = tables.scan(export.home, "videos").select("video_id", "consent").collect()
    reasons: dict[str, str] = {}
    for video, text in stated.unique().drop_nulls().iter_rows():
        said = consent.parse(text)
        if reason := said.refusal(use=export.options.use, today=export.today):
            reasons[video] = reason
    found = pl.col("video_id").replace_strict(reasons, default=None, return_dtype=pl.String)
    return export.leave_out(rows, found, None)


def without_licence(export: Export, rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out rows whose licence forbids the declared use.

    Raises:
        ReleaseError: a licence forbids it and its rows are not to be dropped.
    """
    if breaches := eligibility.breaches(export.source):
        raise ReleaseError(
            "Licences forbid the use that this version declares",
            got="; ".join(breaches[:3]),
            hint="build a new version with `risorius release create`",
        )
    use = export.options.use
    if use is None:
        return rows
    models = [
        str(model["name"])
        for model in export.contents["facts"].get("models", [])
        if not permits(model.get("licence"), use)
    ]
    names = rows["licence"].unique().to_list()
    bad = [name for name in names if not permits(name, use)]
    if models or (bad and not export.options.drop_forbidden):
        listed = [str(name or "no licence stated") for name in bad]
        raise ReleaseError(
            f"Licences forbid {use} use",
            got=", ".join([*listed, *(f"model {name}" for name in models)]),
            hint="leave their rows out with --drop-forbidden, or declare another --use"
            if not models
            else "declare another --use",
        )
    forbidden = pl.col("licence").is_in(bad, nulls_equal=True)
    return export.leave_out(rows, forbidden, eligibility.FORBIDDEN)
