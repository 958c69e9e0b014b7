"""Compare two versions: faces added, removed and changed, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.releases import manifest, verification, versions
from warehouse.releases.schema import CONFIGS, FACE_FILES
from warehouse.releases.statistics import label_shares
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

COLUMNS = (
    "face_id", "video_id", "subject_id", "split", "expression", "soft_label", "n_votes",
    "is_label_issue", "is_open_set", "duplicate_of", "source",
)  # fmt: skip

CHANGES = {
    "added": "added", "removed": "removed", "label": "changed label", "split": "changed split",
    "flag": "changed flag",
}  # fmt: skip
"""Kinds of change and their names in text."""

_FLAGS = ("is_label_issue", "is_open_set", "duplicate_of")
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Difference:
    """The differences between two versions of a release.

    Attributes:
        old: ``v1``, …
        new: likewise.
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
        """Return everything as JSON-ready data."""
        return {
            "name": self.name, "old": self.old, "new": self.new, **self.facts,
            "faces": self.changes.to_dicts(),
        }  # fmt: skip

    def text(self) -> str:
        """Return counts by reason and class shares as text, without ids."""
        before, after = self.facts["rows"]
        lines = [f"{self.name} {self.old} to {self.new}: {before} faces to {after}"]
        for change, title in CHANGES.items():
            reasons = self.facts["changes"][change]
            why = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in reasons.items())
            lines.append(f"{title:<14} {sum(reasons.values()):>6}  {why}".rstrip())
        lines.append("")
        lines.append(f"{'expression':<12}{self.old:>9}{self.new:>9}   change of its share")
        for row in self.facts["classes"]:
            points = 100 * (row["after"] - row["before"])
            lines.append(
                f"{row['name']:<12}{row['before']:>9.1%}{row['after']:>9.1%}{points:>+8.1f} points"
            )
        return "\n".join(lines)


def diff(
    home: str | Path | Home, *, name: str, old: str | int, new: str | int = "latest"
) -> Difference:
    """Compare the files of two versions.

    Raises:
        ReleaseError: a version does not exist, or was changed after it was built.
    """
    place = Home.at(home)
    first, second = (versions.resolve(place, name, version) for version in (old, new))
    for path in (first, second):
        verification.check(path, CONFIGS["default"], CONFIGS["synthetic"])
    before, after = read_faces(first), read_faces(second)
    found = _changes(before, after, left_out=manifest.read(second).get("left_out", {}))
    return Difference(
        name, first.name, second.name, changes=found, facts=_facts(before, after, found)
    )


def compare(
    old: pl.DataFrame, rows: pl.DataFrame, *, left_out: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Count what changes from an earlier version to the rows of the next one.

    Args:
        old: the earlier version, as ``read_faces`` returns it.
        rows: faces to be released, with ``split``.
        left_out: reason code to the faces that the new version leaves out.

    Returns:
        ``rows`` (before, after), ``changes`` (kind to reason to number of faces), ``relabelled``
        (list of ``before, after, n``) and ``classes`` (list of ``name, before, after``: the mean
        soft label).
    """
    new = rows.select(COLUMNS).with_columns(pl.col("soft_label").cast(pl.List(pl.Float32)))
    return _facts(old, new, _changes(old, new, left_out=left_out))


def read_faces(path: Path) -> pl.DataFrame:
    """Read ``COLUMNS`` of every face of a version, sorted by face_id."""
    parts = [
        pl.scan_parquet(sorted(files), glob=False)
        .with_columns(
            split=pl.lit(split), soft_label=pl.col("soft_label").cast(pl.List(pl.Float32))
        )
        .select(COLUMNS)
        for split, pattern in FACE_FILES.items()
        if (files := list(path.glob(pattern)))
    ]
    return pl.concat(parts).sort("face_id").collect()


def _changes(
    old: pl.DataFrame, new: pl.DataFrame, *, left_out: Mapping[str, list[str]]
) -> pl.DataFrame:
    """List changes: ``face_id, change, reason, before, after`` (text).

    Reasons. Added: ``new_subject``, ``new_video``, ``newly_released`` (its video was there),
    ``synthetic``. Removed: why the new version left it out, else ``no_longer_curated``. Label:
    ``more_votes``, ``fewer_votes``, ``other_votes``. Flag: the column.
    """
    both = old.join(new, on="face_id", suffix="_new")
    kinds = [
        _added(old, new),
        _removed(old, new, left_out),
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


def _added(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
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
    added = new.join(old, on="face_id", how="anti")
    return _row(added, "added", reason, pl.lit(None), _expression("expression"))


def _removed(
    old: pl.DataFrame, new: pl.DataFrame, left_out: Mapping[str, list[str]]
) -> pl.DataFrame:
    reasons = {face: reason for reason, faces in left_out.items() for face in faces}
    reason = pl.col("face_id").replace_strict(
        reasons, default="no_longer_curated", return_dtype=pl.String
    )
    removed = old.join(new, on="face_id", how="anti")
    return _row(removed, "removed", reason, _expression("expression"), pl.lit(None))


def _relabelled(both: pl.DataFrame) -> pl.DataFrame:
    difference = (
        (pl.col("soft_label") - pl.col("soft_label_new")).list.eval(pl.element().abs()).list.max()
    )
    one_null = pl.col("soft_label").is_null() != pl.col("soft_label_new").is_null()
    reason = (
        pl.when(pl.col("n_votes_new") > pl.col("n_votes"))
        .then(pl.lit("more_votes"))
        .when(pl.col("n_votes_new") < pl.col("n_votes"))
        .then(pl.lit("fewer_votes"))
        .otherwise(pl.lit("other_votes"))
    )
    changed = both.filter(one_null | (difference > _TOLERANCE))
    return _row(changed, "label", reason, _expression("expression"), _expression("expression_new"))


def _expression(column: str) -> pl.Expr:
    """Return the name of an expression; ``tied`` if no share is the largest."""
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


def _facts(old: pl.DataFrame, new: pl.DataFrame, changes: pl.DataFrame) -> dict[str, Any]:
    counted = changes.group_by("change", "reason").len()
    counted = counted.sort("change", "len", "reason", descending=[False, True, False])
    by_change: dict[str, dict[str, int]] = {change: {} for change in CHANGES}
    for change, reason, n in counted.iter_rows():
        by_change[change][reason] = n
    relabelled = (
        changes.filter(pl.col("change") == "label", pl.col("before") != pl.col("after"))
        .group_by("before", "after")
        .len("n")
        .sort("n", "before", "after", descending=[True, False, False])
    )
    before, after = label_shares(old), label_shares(new)
    return {
        "rows": [old.height, new.height],
        "changes": by_change,
        "relabelled": relabelled.to_dicts(),
        "classes": [
            {"name": name, "before": before[name], "after": after[name]} for name in EXPRESSIONS
        ],
    }
