"""What changed from one version to another: who came, went, was read anew, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.releases import versions
from warehouse.releases.schema import SPLITS
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

COLUMNS = (
    "face_id", "video_id", "subject_id", "split", "expression", "soft_label", "n_votes",
    "is_label_issue", "is_open_set", "duplicate_of", "source",
)  # fmt: skip

CHANGES = {
    "came": "came", "went": "went", "label": "changed label", "split": "changed split",
    "flag": "changed flag",
}  # fmt: skip
"""Kinds of change, and how a sentence says them."""

_SAME = 1e-6
_FLAGS = ("is_label_issue", "is_open_set", "duplicate_of")


@dataclass(frozen=True)
class Difference:
    """Two versions side by side.

    Attributes:
        old: ``v1``, …; ``new`` likewise.
        changes: one row per face and change: ``face_id, change, reason, before, after``.
        facts: the counts of ``compare``.
    """

    name: str
    old: str
    new: str
    changes: pl.DataFrame
    facts: dict[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            "name": self.name, "old": self.old, "new": self.new, **self.facts,
            "faces": self.changes.to_dicts(),
        }  # fmt: skip

    def text(self) -> str:
        """A page for people, without face ids: counts by reason and the classes' shares."""
        before, after = self.facts["rows"]
        lines = [f"{self.name} {self.old} to {self.new}: {before} faces to {after}"]
        for change, said in CHANGES.items():
            reasons = self.facts["changes"][change]
            why = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in reasons.items())
            lines.append(f"{said:<14} {sum(reasons.values()):>6}  {why}".rstrip())
        lines.append("")
        lines.append(f"{'expression':<12}{self.old:>9}{self.new:>9}   change of its share")
        for row in self.facts["classes"]:
            moved = 100 * (row["after"] - row["before"])
            lines.append(
                f"{row['name']:<12}{row['before']:>9.1%}{row['after']:>9.1%}{moved:>+8.1f} points"
            )
        return "\n".join(lines)


def diff(
    home: str | Path | Home, *, name: str, old: str | int, new: str | int = "latest"
) -> Difference:
    """Compare two versions by their files.

    Raises:
        ReleaseError: one of them is not there or damaged.
    """
    place = Home.at(home)
    first, second = (versions.resolve(place, name, version) for version in (old, new))
    left_out = {
        face: reason
        for reason, faces in versions.manifest(second).get("left_out", {}).items()
        for face in faces
    }
    before, after = faces_of(first), faces_of(second)
    found = changes(before, after, left_out=left_out)
    facts = _facts(before, after, found)
    return Difference(name, first.name, second.name, changes=found, facts=facts)


def compare(old: pl.DataFrame, new: pl.DataFrame, *, left_out: Mapping[str, str]) -> dict[str, Any]:
    """Counts of what changed, for card and report.

    Args:
        old: ``COLUMNS`` of the earlier version, as ``faces_of`` reads them; ``new`` likewise.
        left_out: face to the reason why the new version does not hold it.

    Returns:
        ``rows`` (before, after), ``changes`` (kind to reason to faces), ``relabelled`` (list of
        ``before, after, n``), ``classes`` (list of ``name, before, after``: mean soft label).
    """
    return _facts(old, new, changes(old, new, left_out=left_out))


def faces_of(path: Path) -> pl.DataFrame:
    """``COLUMNS`` of every face of a version, without the pictures, by face_id."""
    parts = [
        pl.scan_parquet(sorted(files), glob=False)
        .with_columns(
            split=pl.lit(split), soft_label=pl.col("soft_label").cast(pl.List(pl.Float32))
        )
        .select(COLUMNS)
        for split in SPLITS
        if (files := list((path / "data").glob(f"{split}-*.parquet")))
    ]
    return pl.concat(parts).sort("face_id").collect()


def slim(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows about to be released, in the shape of ``faces_of``."""
    return rows.select(COLUMNS).with_columns(pl.col("soft_label").cast(pl.List(pl.Float32)))


def changes(old: pl.DataFrame, new: pl.DataFrame, *, left_out: Mapping[str, str]) -> pl.DataFrame:
    """One row per face and change: ``face_id, change, reason, before, after`` (all text).

    Reasons. Came: ``new_subject``, ``new_video``, ``newly_released`` (its video was there),
    ``synthetic``. Went: why the new version left it out, else ``no_longer_curated``. Label:
    ``more_votes``, ``fewer_votes``, ``other_votes``. Flag: the column.
    """
    both = old.join(new, on="face_id", suffix="_new")
    kinds = [
        _came(old, new),
        _went(old, new, left_out),
        _relabelled(both),
        _row(
            both.filter(pl.col("split") != pl.col("split_new")),
            "split", pl.lit("moved"), pl.col("split"), pl.col("split_new"),
        ),
        *(
            _row(
                both.filter(pl.col(flag).ne_missing(pl.col(f"{flag}_new"))),
                "flag", pl.lit(flag), pl.col(flag), pl.col(f"{flag}_new"),
            )
            for flag in _FLAGS
        ),
    ]  # fmt: skip
    return pl.concat(kinds).sort("change", "reason", "face_id")


def _came(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    known = {name: old[name].drop_nulls().unique().implode() for name in ("subject_id", "video_id")}
    reason = (
        pl.when(pl.col("source") == "synthetic")
        .then(pl.lit("synthetic"))
        .when(~pl.col("subject_id").is_in(known["subject_id"]))
        .then(pl.lit("new_subject"))
        .when(~pl.col("video_id").is_in(known["video_id"]))
        .then(pl.lit("new_video"))
        .otherwise(pl.lit("newly_released"))
    )
    fresh = new.join(old, on="face_id", how="anti")
    return _row(fresh, "came", reason, pl.lit(None), _name("expression"))


def _went(old: pl.DataFrame, new: pl.DataFrame, left_out: Mapping[str, str]) -> pl.DataFrame:
    reason = pl.col("face_id").replace_strict(
        dict(left_out), default="no_longer_curated", return_dtype=pl.String
    )
    gone = old.join(new, on="face_id", how="anti")
    return _row(gone, "went", reason, _name("expression"), pl.lit(None))


def _relabelled(both: pl.DataFrame) -> pl.DataFrame:
    apart = (
        (pl.col("soft_label") - pl.col("soft_label_new")).list.eval(pl.element().abs()).list.max()
    )
    one_sided = pl.col("soft_label").is_null() != pl.col("soft_label_new").is_null()
    reason = (
        pl.when(pl.col("n_votes_new") > pl.col("n_votes"))
        .then(pl.lit("more_votes"))
        .when(pl.col("n_votes_new") < pl.col("n_votes"))
        .then(pl.lit("fewer_votes"))
        .otherwise(pl.lit("other_votes"))
    )
    moved = both.filter(one_sided | (apart > _SAME))
    return _row(moved, "label", reason, _name("expression"), _name("expression_new"))


def _name(column: str) -> pl.Expr:
    """The expression's name; ``tied`` where no share is the largest."""
    names = dict(enumerate(EXPRESSIONS))
    return (
        pl.col(column)
        .cast(pl.Int64)
        .replace_strict(names, default=None, return_dtype=pl.String)
        .fill_null("tied")
    )


def _row(
    frame: pl.DataFrame, change: str, reason: pl.Expr, before: pl.Expr, after: pl.Expr
) -> pl.DataFrame:
    return frame.select(
        "face_id",
        change=pl.lit(change),
        reason=reason,
        before=before.cast(pl.String),
        after=after.cast(pl.String),
    )


def _facts(old: pl.DataFrame, new: pl.DataFrame, found: pl.DataFrame) -> dict[str, Any]:
    counted = found.group_by("change", "reason").len()
    counted = counted.sort("change", "len", "reason", descending=[False, True, False])
    by_change: dict[str, dict[str, int]] = {change: {} for change in CHANGES}
    for change, reason, n in counted.iter_rows():
        by_change[change][reason] = n
    moved = (
        found.filter(pl.col("change") == "label", pl.col("before") != pl.col("after"))
        .group_by("before", "after")
        .len("n")
        .sort("n", "before", "after", descending=[True, False, False])
    )
    shares = [_shares(old), _shares(new)]
    return {
        "rows": [old.height, new.height],
        "changes": by_change,
        "relabelled": moved.to_dicts(),
        "classes": [
            {"name": name, "before": shares[0][index], "after": shares[1][index]}
            for index, name in enumerate(EXPRESSIONS)
        ],
    }


def _shares(rows: pl.DataFrame) -> list[float]:
    labels = rows["soft_label"].drop_nulls()
    if labels.is_empty():
        return [0.0] * len(EXPRESSIONS)
    wide = labels.cast(pl.Array(pl.Float64, len(EXPRESSIONS))).to_numpy()
    return [round(float(value), 6) for value in wide.mean(axis=0)]
