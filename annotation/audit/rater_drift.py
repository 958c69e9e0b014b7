"""Rater drift: whose votes changed, come too fast, or are always the same?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotation.aggregation.overlap import overlap
from annotation.aggregation.rater_quality import rater_quality
from annotation.aggregation.votes import VoteTable, tally
from annotation.audit.base import AuditResult
from warehouse.errors import TableError
from warehouse.storage.schema import TABLES

_TOO_MANY = 0.25
_ALWAYS = 0.9
_ALIKE = 0.7
"""Of three raters one who changes moves the other two by half as much."""


@dataclass(frozen=True)
class RaterDrift:
    """Three habits that make votes worth less, and what a rater is worth with them.

    A rater's comparable votes are put in order of time and cut in the middle. Per vote, what
    counts is the overlap with the other raters *minus* how far the others overlap with one another
    on that face, because later faces may be harder ones. That needs three raters on a face; a
    rater with too few such faces is judged on plain overlap with any other.

    - drift = mean of the last half - mean of the first, in [-2, 2]; negative: less like the
      others than before. Null with fewer than ``fewest`` comparable votes or without times.
    - A rater *drifts* when a two-sample z of the halves is at least ``z`` in size, also when
      those who changed more are left out of the comparison.
    - A vote is *hasty* when it took under ``seconds`` and under a third of the median of all
      votes; a rater is when more than a quarter of the votes are.
    - A rater is *monotone* whose most frequent answer is at least nine in ten, and more than the
      others gave on the same faces by ``z`` standard deviations: who was only shown smiles is not.
    - weight = ``rater_quality.weight`` times the share of votes that are not hasty, times
      1 + drift for those who drift away from the others; for ``aggregate.weighted``, if wanted.

    The audits table is per face and drift is per rater, so ``rows`` is empty. What was found is in
    ``statistics``: ``drift`` (rater_id to drift or None, which fills ``rater_quality.drift``),
    ``drifting``, ``hasty``, ``monotone`` (rater_ids), ``weight`` (rater_id to weight in [0, 1]),
    ``raters`` (one dict each: votes, halves, z, the share of the rater's most frequent answer and
    of hasty votes, the weight). ``score``: share of the raters with ``fewest`` votes of whom none
    of the three was found; 1 without such raters.
    """

    name = "rater_drift"
    fewest: int = 8
    z: float = 3.0
    seconds: float = 1.0

    def find(self, *, votes: pl.DataFrame) -> AuditResult:
        """Audit raters.

        Args:
            votes: the long vote table with ``updated_at`` (or ``created_at``) and, if known,
                ``lead_time_s``; of rows that repeat a face and rater the newest time counts.

        Raises:
            TableError: the votes are not votes.
        """
        table = tally(votes)
        halves = self._halves(votes, table)
        found = [{"rater_id": name, **halves[name]} for name in table.rater_ids]
        quick = _hasty_shares(votes, table, seconds=self.seconds)
        worth = dict(rater_quality(votes).select("rater_id", "weight").iter_rows())
        for row, habit in zip(found, _habits(table), strict=True):
            row |= {**habit, "hasty_share": quick.get(row["rater_id"])}
            row["weight"] = worth[row["rater_id"]] * _worth(row)
        marked = {
            "drifting": [row["rater_id"] for row in found if row["drifts"]],
            "hasty": [
                row["rater_id"]
                for row in found
                if row["n"] >= self.fewest and (row["hasty_share"] or 0) > _TOO_MANY
            ],
            "monotone": [row["rater_id"] for row in found if self._is_monotone(row)],
        }
        judged = [row["rater_id"] for row in found if row["n"] >= self.fewest]
        odd = set().union(*marked.values()) & set(judged)
        return AuditResult(
            TABLES["audits"].empty(),
            1 - len(odd) / len(judged) if judged else 1.0,
            {
                "drift": {row["rater_id"]: row["drift"] for row in found},
                "weight": {row["rater_id"]: row["weight"] for row in found},
                **marked,
                "judged": sum(row["drift"] is not None for row in found),
                "not_judged": sum(row["drift"] is None for row in found),
                "raters": found,
            },
        )

    def _halves(self, votes: pl.DataFrame, table: VoteTable) -> dict[str, dict[str, Any]]:
        """Each rater's halves, and whether they drift, by rater_id.

        Who changes makes those compared with them seem to change the other way, by less. So the
        most changed are taken out and the rest compared anew, until nobody stands out.
        """
        found: dict[str, dict[str, Any]] = {}
        left = votes
        while True:
            timed = _timed(left, table)
            rows = {
                name: self._one(timed.filter(pl.col("rater") == rater)) | {"drifts": False}
                for rater, name in enumerate(table.rater_ids)
            }
            # Nobody left to compare with: what was seen before stands, without the verdict.
            found |= {
                name: row for name, row in rows.items() if row["z"] is not None or name not in found
            }
            sizes = {name: abs(row["z"]) for name, row in rows.items() if row["z"] is not None}
            most = max(sizes.values(), default=0.0)
            if most < self.z:
                return found
            changed = [name for name, size in sizes.items() if size >= max(self.z, _ALIKE * most)]
            for name in changed:
                found[name]["drifts"] = True
            left = left.filter(~pl.col("rater_id").is_in(changed))
            table = tally(left)

    def _is_monotone(self, row: dict[str, Any]) -> bool:
        often = row["most_frequent_share"] >= _ALWAYS
        return row["n"] >= self.fewest and often and row["monotone_z"] >= self.z

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
            hint="parse them into a datetime",
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


def _habits(table: VoteTable) -> list[dict[str, Any]]:
    """Per rater: faces answered, the share of the most frequent answer, and how far that exceeds
    what the other raters answered about the same faces, in standard deviations."""
    totals = table.counts("share")
    voters = table.n_raters()
    habits = []
    for (_,), mine in table.answers.sort("rater").group_by("rater", maintain_order=True):
        faces, rows = np.unique(mine["face"].to_numpy(), return_inverse=True)
        own = np.zeros((len(faces), totals.shape[1]))
        own[rows, mine["answer"].to_numpy()] = mine["share"].to_numpy()
        top = int(own.sum(axis=0).argmax())
        shared = voters[faces] > 1
        expected = (totals[faces, top] - own[:, top])[shared] / (voters[faces][shared] - 1)
        # Half a vote of doubt: others who all agree are no proof that nobody may differ.
        spread = math.sqrt((expected * (1 - expected)).sum() + 0.25)
        excess = float(own[shared, top].sum() - expected.sum()) / spread
        habits.append(
            {
                "n": len(faces),
                "most_frequent_share": float(own[:, top].sum() / own.sum()),
                "monotone_z": excess,
            }
        )
    return habits


def _hasty_shares(votes: pl.DataFrame, table: VoteTable, *, seconds: float) -> dict[str, float]:
    if "lead_time_s" not in votes.columns:
        return {}
    known = pl.col("lead_time_s").cast(pl.Float64)
    timed = (
        votes.select("face_id", "rater_id", known)
        .filter(pl.col("lead_time_s").is_finite(), pl.col("rater_id").is_in(table.rater_ids))
        .group_by("face_id", "rater_id")
        .agg(pl.col("lead_time_s").max())
    )
    usual = timed["lead_time_s"].median()
    if not isinstance(usual, int | float):
        return {}
    hasty = pl.col("lead_time_s") < min(seconds, usual / 3)
    shares = timed.group_by("rater_id").agg(hasty.mean())
    return dict(shares.iter_rows())


def _worth(row: dict[str, Any]) -> float:
    leaving = row["drift"] if row["drifts"] and row["drift"] < 0 else 0.0
    return (1 - (row["hasty_share"] or 0.0)) * max(0.0, 1 + leaving)
