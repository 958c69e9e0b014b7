"""Rater drift: votes that change, are too fast or are all the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotation.aggregation.agreement import overlap
from annotation.aggregation.rater_quality import rater_quality
from annotation.aggregation.votes import VoteTable, tally
from annotation.audit.base import AuditResult
from warehouse.errors import TableError
from warehouse.storage.schema import TABLES

_MAX_HASTY_SHARE = 0.25
_MONOTONE_SHARE = 0.9
_COMPARABLE = 0.7
"""Raters whose z is at least this share of the largest are removed together. Of three raters, one
who changes moves the other two by half as much."""


@dataclass(frozen=True)
class RaterDrift:
    """Detect three habits that devalue votes, and weigh raters by them.

    The comparable votes of a rater are sorted by time and cut in the middle. The value of a vote is
    its overlap with the other raters *minus* their overlap with one another on that face, because
    later faces may be harder. This needs three raters per face. A rater with too few such faces is
    judged by the plain overlap.

    - drift = mean of the second half - mean of the first, in [-2, 2]; negative: less like the
      others than before. Null with fewer than ``min_votes`` comparable votes or without times.
    - A rater *drifts* if a two-sample z of the halves has a magnitude of at least ``z``, also after
      raters with larger changes are removed from the comparison.
    - A vote is *hasty* if it took less than ``seconds`` and less than a third of the median of all
      votes. A rater is hasty if more than a quarter of the votes are.
    - A rater is *monotone* if one answer is at least 90 % of the votes, and exceeds what the others
      answered on the same faces by ``z`` standard deviations. A rater who only saw smiles is not.
    - weight = ``rater_quality.weight`` times the share of votes that are not hasty, times 1 + drift
      for raters who drift away from the others; for ``aggregation.weighted``.

    The table ``audits`` is per face and drift is per rater, so ``rows`` is empty. ``statistics``
    has ``drift`` (rater_id to drift or None, for ``rater_quality.drift``), ``drifting``, ``hasty``,
    ``monotone`` (rater_ids), ``weight`` (rater_id to weight in [0, 1]) and ``raters`` (one dict
    each: votes, halves, z, share of the most frequent answer, share of hasty votes, weight).
    ``score``: share of the raters with ``min_votes`` votes that have none of the three habits; 1
    without such raters.
    """

    name = "rater_drift"
    min_votes: int = 8
    z: float = 3.0
    seconds: float = 1.0

    def find(self, *, votes: pl.DataFrame) -> AuditResult:
        """Audit raters.

        Args:
            votes: the long vote table with ``updated_at`` (or ``created_at``) and optionally
                ``lead_time_s``. The newest time of repeated rows counts.

        Raises:
            TableError: the votes are invalid.
        """
        table = tally(votes)
        halves = self._compare_halves(votes, table)
        raters = [{"rater_id": name, **halves[name]} for name in table.rater_ids]
        hasty = _hasty_shares(votes, table, seconds=self.seconds)
        quality = dict(rater_quality(votes).select("rater_id", "weight").iter_rows())
        for row, habits in zip(raters, _monotony(table), strict=True):
            row |= {**habits, "hasty_share": hasty.get(row["rater_id"])}
            drift = row["drift"] if row["drifts"] and row["drift"] < 0 else 0.0
            factor = (1 - (row["hasty_share"] or 0.0)) * max(0.0, 1 + drift)
            row["weight"] = quality[row["rater_id"]] * factor
        judged = [row for row in raters if row["n"] >= self.min_votes]
        found = {
            "drifting": [row["rater_id"] for row in raters if row["drifts"]],
            "hasty": [
                row["rater_id"] for row in judged if (row["hasty_share"] or 0) > _MAX_HASTY_SHARE
            ],
            "monotone": [
                row["rater_id"]
                for row in judged
                if row["most_frequent_share"] >= _MONOTONE_SHARE and row["monotone_z"] >= self.z
            ],
        }
        odd = set().union(*found.values()) & {row["rater_id"] for row in judged}
        return AuditResult(
            TABLES["audits"].empty(),
            1 - len(odd) / len(judged) if judged else 1.0,
            {
                "drift": {row["rater_id"]: row["drift"] for row in raters},
                "weight": {row["rater_id"]: row["weight"] for row in raters},
                **found,
                "judged": sum(row["drift"] is not None for row in raters),
                "not_judged": sum(row["drift"] is None for row in raters),
                "raters": raters,
            },
        )

    def _compare_halves(self, votes: pl.DataFrame, table: VoteTable) -> dict[str, dict[str, Any]]:
        """Compare the halves of each rater, by rater_id.

        A rater who changes makes the others seem to change the other way, by less. So the raters
        with the largest change are removed and the rest compared again until none is significant.
        """
        found: dict[str, dict[str, Any]] = {}
        left = votes
        while True:
            timed = _timed_overlap(left, table)
            rows = {
                name: self._halves(timed.filter(pl.col("rater") == rater)) | {"drifts": False}
                for rater, name in enumerate(table.rater_ids)
            }
            # A rater without anyone left to compare with keeps the earlier values, not the verdict.
            found |= {
                name: row for name, row in rows.items() if row["z"] is not None or name not in found
            }
            sizes = {name: abs(row["z"]) for name, row in rows.items() if row["z"] is not None}
            largest = max(sizes.values(), default=0.0)
            if largest < self.z:
                return found
            limit = max(self.z, _COMPARABLE * largest)
            changed = [name for name, size in sizes.items() if size >= limit]
            for name in changed:
                found[name]["drifts"] = True
            left = left.filter(~pl.col("rater_id").is_in(changed))
            table = tally(left)

    def _halves(self, votes: pl.DataFrame) -> dict[str, Any]:
        relative = votes["relative"].drop_nulls()
        series = relative if relative.len() >= self.min_votes else votes["overlap"].drop_nulls()
        if series.len() < self.min_votes:
            return {"votes": votes.height, "first": None, "last": None, "drift": None, "z": None}
        half = series.len() // 2
        values = series.to_numpy()
        first, last = values[:half], values[half:]
        return {
            "votes": votes.height,
            "first": float(first.mean()),
            "last": float(last.mean()),
            "drift": float(last.mean() - first.mean()),
            "z": _two_sample_z(first, last),
        }


def _timed_overlap(votes: pl.DataFrame, table: VoteTable) -> pl.DataFrame:
    """Each rater's overlaps in order of time."""
    column = next((name for name in ("updated_at", "created_at") if name in votes.columns), None)
    pairs = table.with_ids(_relative_overlap(overlap(table)))
    if column is None:
        return pairs.clear()
    if not (votes[column].dtype.is_temporal() or votes[column].dtype.is_numeric()):
        raise TableError(
            f"The column {column} is not a time",
            got=f"the type {votes[column].dtype}",
            hint="parse it into a datetime",
        )
    times = votes.group_by("face_id", "rater_id").agg(at=pl.col(column).max())
    timed = pairs.join(times, on=["face_id", "rater_id"]).filter(pl.col("at").is_not_null())
    return timed.sort("rater", "at", "face_id")


def _relative_overlap(pairs: pl.DataFrame) -> pl.DataFrame:
    """Add ``relative``: overlap minus the others' overlap with one another."""
    others = pl.col("n_others")
    in_all = (pl.col("overlap") * others).sum().over("face") / 2
    among_others = (in_all - pl.col("overlap") * others) / (others * (others - 1) / 2)
    return pairs.with_columns(relative=pl.when(others >= 2).then(pl.col("overlap") - among_others))


def _two_sample_z(first: np.ndarray, last: np.ndarray) -> float:
    variance = first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)
    gap = float(last.mean() - first.mean())
    if variance < 1e-12:
        return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def _monotony(table: VoteTable) -> list[dict[str, Any]]:
    """Per rater: faces, share of the most frequent answer, and its excess.

    The excess is over what the other raters answered about the same faces, in standard deviations.
    """
    totals = table.counts("share")
    n_raters = table.n_raters()
    rows = []
    for (_,), part in table.answers.sort("rater").group_by("rater", maintain_order=True):
        faces, row = np.unique(part["face"].to_numpy(), return_inverse=True)
        own = np.zeros((len(faces), totals.shape[1]))
        own[row, part["answer"].to_numpy()] = part["share"].to_numpy()
        top = int(own.sum(axis=0).argmax())
        shared = n_raters[faces] > 1
        expected = (totals[faces, top] - own[:, top])[shared] / (n_raters[faces][shared] - 1)
        # 0.25 is the variance of half a vote: unanimous others do not make a deviation impossible.
        deviation = math.sqrt((expected * (1 - expected)).sum() + 0.25)
        rows.append(
            {
                "n": len(faces),
                "most_frequent_share": float(own[:, top].sum() / own.sum()),
                "monotone_z": float(own[shared, top].sum() - expected.sum()) / deviation,
            }
        )
    return rows


def _hasty_shares(votes: pl.DataFrame, table: VoteTable, *, seconds: float) -> dict[str, float]:
    if "lead_time_s" not in votes.columns:
        return {}
    timed = (
        votes.select("face_id", "rater_id", pl.col("lead_time_s").cast(pl.Float64))
        .filter(pl.col("lead_time_s").is_finite(), pl.col("rater_id").is_in(table.rater_ids))
        .group_by("face_id", "rater_id")
        .agg(pl.col("lead_time_s").max())
    )
    median = timed["lead_time_s"].median()
    if not isinstance(median, int | float):
        return {}
    hasty = pl.col("lead_time_s") < min(seconds, median / 3)
    shares = timed.group_by("rater_id").agg(hasty.mean())
    return dict(shares.iter_rows())
