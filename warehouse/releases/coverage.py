"""Which expressions and action units a release covers: before and after curation and synthesis."""

from __future__ import annotations

from typing import Any

import polars as pl

from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

AU_PRESENT = 0.25
"""An action unit counts as present from intensity B upwards."""


def curation(rows: pl.DataFrame) -> dict[str, Any]:
    """Label mix before and after the flagged are left out, whether or not this release does so.

    Args:
        rows: every labelled face that a release could hold.
    """
    seen = rows.filter(pl.col("source") != "synthetic")
    flagged = pl.col("is_label_issue").fill_null(False) | pl.col("is_open_set").fill_null(False)
    after = seen.filter(~flagged & pl.col("duplicate_of").is_null())
    return {
        stage: {"faces": part.height, "shares": shares(part), "disputed": _disputed(part)}
        for stage, part in (("before", seen), ("after", after))
    }


def _disputed(rows: pl.DataFrame) -> float | None:
    """Share of labelled faces whose largest share is half or less."""
    top = rows["soft_label"].drop_nulls().arr.max()
    return round(float((top <= 0.5).mean()), 6) if len(top) else None  # type: ignore[arg-type]


def synthesis(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Coverage without and with the made faces; None where there is none."""
    made = rows.filter(pl.col("source") == "synthetic")
    if made.is_empty():
        return None
    seen = rows.filter(pl.col("source") != "synthetic")
    masses = [_masses(part) for part in (seen, made)]
    units = [{row["code"]: row for row in action_units(part)} for part in (seen, made)]
    return {
        "rows": made.height,
        "share": round(made.height / rows.height, 6),
        "expressions": [
            {"name": name, "seen": masses[0][index], "made": masses[1][index]}
            for index, name in enumerate(EXPRESSIONS)
        ],
        "units": [
            {
                "code": unit.code,
                "name": unit.name,
                "seen": units[0].get(unit.code, {}).get("present", 0),
                "made": units[1].get(unit.code, {}).get("present", 0),
            }
            for unit in ACTION_UNITS
            if unit.code in units[0] or unit.code in units[1]
        ],
    }


def _masses(rows: pl.DataFrame) -> list[float]:
    """Label mass per expression, in faces."""
    labels = rows["soft_label"].drop_nulls()
    if labels.is_empty():
        return [0.0] * len(EXPRESSIONS)
    return [round(float(mass), 4) for mass in labels.to_numpy().astype("float64").sum(axis=0)]


def shares(rows: pl.DataFrame) -> dict[str, float]:
    """Mean soft label: what part of the label mass each expression holds."""
    labels = rows["soft_label"].drop_nulls()
    if labels.is_empty():
        return dict.fromkeys(EXPRESSIONS, 0.0)
    mass = labels.to_numpy().astype("float64").mean(axis=0)
    return {name: round(float(value), 6) for name, value in zip(EXPRESSIONS, mass, strict=True)}


def action_units(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Units that any face was measured for; a rater leaves NaN for those it does not know."""
    found = []
    for index, unit in enumerate(ACTION_UNITS):
        values = rows["au"].drop_nulls().arr.get(index).drop_nulls().drop_nans()
        if values.is_empty():
            continue
        found.append(
            {
                "code": unit.code,
                "name": unit.name,
                "present": int((values >= AU_PRESENT).sum()),
                "mean": round(float(values.cast(pl.Float64).mean()), 6),  # type: ignore[arg-type]
                "measured": len(values),
            }
        )
    return found
