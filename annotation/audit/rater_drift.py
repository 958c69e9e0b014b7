"""Rater drift: whose votes changed between the first and the last half?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotation.aggregate.overlap import overlap
from annotation.aggregate.votes import VoteTable, tally
from annotation.audit.result import AuditResult
from warehouse.errors import TableError
from warehouse.schema import TABLES


@dataclass(frozen=True)
class RaterDrift:
    """Agreement with the others in a rater's last votes against the first.

    A rater's comparable votes are put in order of time and cut in the middle. Per vote, what
    counts is the overlap with the other raters *minus* how far the others overlap with one another
    on that face, because later faces may be harder ones. That needs three raters on a face; a
    rater with too few such faces is judged on plain overlap with any other.

    - drift = mean of the last half - mean of the first, in [-2, 2]; negative: less like the
      others than before. Null with fewer than ``fewest`` comparable votes or without times.
    - A rater *drifts* when a two-sample z of the halves is at least ``z`` in size.

    The audits table is per face and drift is per rater, so ``rows`` is empty. What was found is in
    ``statistics``: ``drift`` (rater_id to drift or None, which fills ``rater_quality.drift``),
    ``drifting`` (rater_ids), ``raters`` (one dict each: votes, halves, z, the share of the rater's
    most frequent answer). ``score``: share of the raters with a drift who do not drift; 1 without.
    """

    name = "rater_drift"
    fewest: int = 8
    z: float = 3.0

    def find(self, *, votes: pl.DataFrame) -> AuditResult:
        """Audit raters.

        Args:
            votes: the long vote table with ``updated_at`` (or ``created_at``); of rows that
                repeat a face and rater the newest time counts.

        Raises:
            TableError: the votes are not votes.
        """
        table = tally(votes)
        timed = _timed(votes, table)
        found = [
            {"rater_id": name, **self._one(timed.filter(pl.col("rater") == rater))}
            for rater, name in enumerate(table.rater_ids)
        ]
        habits = _habits(table)
        for row, habit in zip(found, habits, strict=True):
            row["most_frequent_share"] = habit
        known = [row for row in found if row["drift"] is not None]
        drifting = [row["rater_id"] for row in known if abs(row["z"]) >= self.z]
        return AuditResult(
            TABLES["audits"].empty(),
            1 - len(drifting) / len(known) if known else 1.0,
            {
                "drift": {row["rater_id"]: row["drift"] for row in found},
                "drifting": drifting,
                "judged": len(known),
                "not_judged": len(found) - len(known),
                "raters": found,
            },
        )

    def _one(self, mine: pl.DataFrame) -> dict[str, Any]:
        by_three = mine["relative"].drop_nulls()
        series = by_three if by_three.len() >= self.fewest else mine["overlap"].drop_nulls()
        empty = {"votes": mine.height, "first": None, "last": None, "drift": None, "z": None}
        if series.len() < self.fewest:
            return empty
        half = series.len() // 2
        values = series.to_numpy()
        first, last = values[:half], values[half:]
        drift = float(last.mean() - first.mean())
        return {
            "votes": mine.height,
            "first": float(first.mean()),
            "last": float(last.mean()),
            "drift": drift,
            "z": _z(first, last),
        }


def _timed(votes: pl.DataFrame, table: VoteTable) -> pl.DataFrame:
    column = next((name for name in ("updated_at", "created_at") if name in votes.columns), None)
    pairs = table.named(_relative(overlap(table)))
    if column is None:
        return pairs.clear()
    if not (votes[column].dtype.is_temporal() or votes[column].dtype.is_numeric()):
        raise TableError(
            f"times in {column}",
            got=f"the type {votes[column].dtype}",
            mend="parse them into a datetime",
        )
    times = votes.group_by("face_id", "rater_id").agg(at=pl.col(column).max())
    timed = pairs.join(times, on=["face_id", "rater_id"]).filter(pl.col("at").is_not_null())
    return timed.sort("rater", "at", "face_id")


def _relative(pairs: pl.DataFrame) -> pl.DataFrame:
    """Adds ``relative``: overlap less the others' overlap with one another; needs two others."""
    others = pl.col("n_others")
    in_all = (pl.col("overlap") * others).sum().over("face") / 2
    among_others = (in_all - pl.col("overlap") * others) / (others * (others - 1) / 2)
    return pairs.with_columns(relative=pl.when(others >= 2).then(pl.col("overlap") - among_others))


def _z(first: np.ndarray, last: np.ndarray) -> float:
    variance = first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)
    gap = float(last.mean() - first.mean())
    if variance < 1e-12:
        return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def _habits(table: VoteTable) -> list[float]:
    said = table.answers.group_by("rater", "answer").agg(pl.col("share").sum())
    top = said.group_by("rater").agg(pl.col("share").max() / pl.col("share").sum()).sort("rater")
    return top["share"].to_list()
