"""Say which action units of a face are active, and who says so."""

from __future__ import annotations

import polars as pl

from warehouse.releases.layouts.core import Export
from warehouse.vocabulary import ACTION_UNITS

ACTIVE = 0.5
"""Proxy intensity from which a unit counts as active, as OpenGraphAU thresholds."""


def with_units(export: Export, rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``units`` (FACS numbers) and ``au_by`` (person, machine, null).

    Units that people coded win: those that most coders of the face found active. Otherwise the
    machine's proxies from ``ACTIVE`` count.

    Args:
        rows: ``face_id, au``.
    """
    found = coded(export)
    numbers = [unit.number for unit in ACTION_UNITS]
    units: list[list[int]] = []
    origin: list[str | None] = []
    for face, values in rows.select("face_id", "au").iter_rows():
        if face in found:
            units.append(found[face])
            origin.append("person")
            continue
        active = [
            n for n, value in zip(numbers, values or (), strict=False) if (value or 0) >= ACTIVE
        ]
        units.append(active)
        origin.append("machine" if values is not None else None)
    return rows.with_columns(
        units=pl.Series(units, dtype=pl.List(pl.Int64)), au_by=pl.Series(origin, dtype=pl.String)
    )


def coded(export: Export) -> dict[str, list[int]]:
    """Return the units that most of a face's coders found active, by face."""
    votes = export.votes()
    if "au" not in votes.columns:
        return {}
    found: dict[str, list[list[int]]] = {}
    for face, listed in votes.select("face_id", "au").drop_nulls().iter_rows():
        if listed:
            active = [one["unit"] for one in listed if (one["intensity"] or 0) > 0]
            found.setdefault(face, []).append(active)
    return {
        face: sorted(
            unit
            for unit in {unit for active in lists for unit in active}
            if 2 * sum(unit in active for active in lists) > len(lists)
        )
        for face, lists in found.items()
    }
