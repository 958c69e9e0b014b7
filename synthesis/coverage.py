"""Find coverage gaps of a set of faces, and plan the faces that fill them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from synthesis.request import CONTRADICTIONS
from warehouse.ids import sha256_of
from warehouse.vocabulary import ACTION_UNITS, COMPOUNDS, EXPRESSIONS, PROTOTYPES

AU_NUMBERS = [unit.number for unit in ACTION_UNITS]

PLAN: dict[str, pl.DataType | type[pl.DataType]] = {
    "gap": pl.String,
    "number": pl.Int64,
    "au": pl.List(pl.Struct({"unit": pl.Int64, "intensity": pl.Float64})),
    "expression": pl.String,
    "seed": pl.Int64,
}
"""Columns of a plan."""

PRESENT = 0.25
"""Intensity (FACS letter B) from which a unit counts as shown."""

KINDS = {"expression": 0.5, "unit": 0.25, "pair": 0.25, "pose": 0.0}
"""Kinds of gaps, and their share of a plan. Poses are reported but cannot be requested."""

_POSES = {
    "frontal": (0, 15),
    "turned": (15, 30),
    "far turned": (30, 91),
}
"""Bins of |yaw| in degrees."""

_STRENGTHS = (0.6, 0.9, 0.75)


@dataclass(frozen=True)
class Wanted:
    """Sufficient faces per kind, as shares of all; ``least`` is a minimum."""

    expression: float = 0.5 / len(EXPRESSIONS)
    unit: float = 0.05
    pair: float = 0.02
    pose: float = 0.1
    least: float = 8.0

    def of(self, kind: str, faces: int) -> float:
        """Return how many of ``faces`` are enough for a kind."""
        return max(self.least, float(getattr(self, kind)) * faces)


def gaps(
    expression: np.ndarray,
    au: np.ndarray,
    yaw: np.ndarray,
    *,
    wanted: Wanted | None = None,
    supported: Iterable[int] | None = None,
) -> pl.DataFrame:
    """Count faces per expression, action unit, pair of units and pose.

    Args:
        expression: soft labels float[n, 8]; rows of NaN count for none.
        au: float[n, K], NaN = not measured.
        yaw: degrees float[n], NaN = not measured.
        supported: units that can be requested; None: all.

    Returns:
        ``kind``, ``name``, ``have`` (faces; for expressions the mass of their labels; null for a
        unit that is not measured on any face, which has no gap),
        ``wanted``, ``missing`` (never below 0), ``can_be_made``. Pairs are those of a
        prototype or compound expression.
    """
    target, n = wanted or Wanted(), len(expression)
    blind = {AU_NUMBERS[at] for at in np.flatnonzero(unmeasured(au))}
    known = set(AU_NUMBERS if supported is None else supported)
    there = np.nan_to_num(au, nan=-1.0) >= PRESENT
    rows: list[tuple[str, str, float | None, bool]] = [
        ("expression", name, float(np.nansum(expression[:, place])), True)
        for place, name in enumerate(EXPRESSIONS)
    ]
    rows += [
        (
            "unit",
            unit.code,
            None if unit.number in blind else float(there[:, place].sum()),
            unit.number in known,
        )
        for place, unit in enumerate(ACTION_UNITS)
    ]
    for a, b in meaningful_pairs():
        both = there[:, AU_NUMBERS.index(a)] & there[:, AU_NUMBERS.index(b)]
        have = None if {a, b} & blind else float(both.sum())
        rows.append(("pair", f"AU{a}+AU{b}", have, {a, b} <= known))
    turn = np.abs(yaw)
    for name, (low, high) in _POSES.items():
        rows.append(("pose", name, float(((turn >= low) & (turn < high)).sum()), False))
    schema = {"kind": pl.String, "name": pl.String, "have": pl.Float64, "can_be_made": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        wanted=pl.col("kind").replace_strict({kind: target.of(kind, n) for kind in KINDS})
    )
    short = (pl.col("wanted") - pl.col("have")).clip(lower_bound=0).fill_null(0)
    return frame.with_columns(missing=short)


def unmeasured(au: np.ndarray) -> np.ndarray:
    """Return bool[K]: units measured on no face; all False without faces."""
    return ~np.isfinite(au).any(axis=0) & (len(au) > 0)


def counts(au: np.ndarray) -> np.ndarray:
    """Count faces that show both units, int[K, K]; on the diagonal, one unit."""
    there = (np.nan_to_num(au, nan=-1.0) >= PRESENT).astype(int)
    return there.T @ there


def plan(lacking: pl.DataFrame, n: int, *, supported: Iterable[int] | None = None) -> pl.DataFrame:
    """Plan ``n`` faces, allocated to the largest gaps.

    The i-th face for a gap is the same in every plan: when a gap closes, faces for other gaps
    do not change.

    Returns:
        ``gap`` (``kind:name``), ``number`` (from 0 within the gap), ``au`` (list of struct
        ``unit, intensity``), ``expression`` (name or null), ``seed``.
    """
    known = set(AU_NUMBERS if supported is None else supported)
    rows = []
    for kind, name, size in _shares(lacking, n):
        for number in range(size):
            au, expression = request(kind, name, number, known)
            rows.append(
                {
                    "gap": f"{kind}:{name}",
                    "number": number,
                    "au": [{"unit": unit, "intensity": value} for unit, value in au.items()],
                    "expression": expression,
                    "seed": _first_seed(f"{kind}:{name}") + number,
                }
            )
    return pl.DataFrame(rows, schema=PLAN)


def request(
    kind: str, name: str, number: int, known: set[int]
) -> tuple[dict[int, float], str | None]:
    """Return action units and expression of the ``number``-th face for a gap."""
    strength = _STRENGTHS[number % len(_STRENGTHS)]
    if kind == "expression":
        fixed = {unit: value for unit, value in PROTOTYPES[name].items() if unit in known}
        return {unit: strength if v is None else v for unit, v in fixed.items()}, name
    units = [int(code.removeprefix("AU")) for code in name.split("+")]
    return dict.fromkeys(units, strength), None


def meaningful_pairs() -> list[tuple[int, int]]:
    """Return pairs of units of a prototype or compound that one face can show."""
    groups = [tuple(units) for units in PROTOTYPES.values()]
    groups += [compound.units for compound in COMPOUNDS.values()]
    found = {tuple(sorted(pair)) for group in groups for pair in combinations(group, 2)}
    impossible = {tuple(sorted(pair)) for pair in CONTRADICTIONS}
    return sorted((a, b) for a, b in found - impossible)


def _shares(lacking: pl.DataFrame, n: int) -> list[tuple[str, str, int]]:
    """Allocate ``n`` faces to gaps by largest remainders, capped by the gaps."""
    open_ = lacking.filter(pl.col("can_be_made") & (pl.col("missing") > 0))
    rows = open_.select("kind", "name", "missing").rows()
    by_kind = {kind: sum(m for k, _, m in rows if k == kind) for kind in KINDS}
    there = sum(KINDS[kind] for kind, missing in by_kind.items() if missing)
    weight = [KINDS[kind] / there * m / by_kind[kind] for kind, _, m in rows]
    limit = [int(np.ceil(m)) for *_, m in rows]
    ideal = [n * share for share in weight]
    size = [min(int(part), most) for part, most in zip(ideal, limit, strict=True)]
    order = sorted(range(len(rows)), key=lambda at: (size[at] - ideal[at], at))
    left = min(n, sum(limit)) - sum(size)
    while left > 0:
        for at in order:
            if left and size[at] < limit[at]:
                size[at] += 1
                left -= 1
    return [(kind, name, size[at]) for at, (kind, name, _) in enumerate(rows) if size[at]]


def _first_seed(gap: str) -> int:
    return int(sha256_of([gap.encode()])[:8], 16)
