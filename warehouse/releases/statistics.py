"""Count the statistics of a release that card and report print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from warehouse.licences import strictest, terms
from warehouse.releases.eligibility import licences_of
from warehouse.releases.schema import SPLITS, SYNTHETIC
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

AU_PRESENT = 0.25
"""Minimum intensity (FACS B) at which an action unit counts as present."""


def summarise(
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    *,
    models: Sequence[Mapping[str, Any]] = (),
    segments: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """Return the statistics of a release, ready for JSON.

    Args:
        rows: the released faces as ``schema.fit_rows`` returns them, with ``split``. Synthetic
            faces in a config of their own count for ``synthesis`` and the licences alone.
        votes: as ``schema.fit_votes`` returns them.
        models: mappings with ``name`` and ``licence``: weights that contributed to the rows.
        segments: released segments; their licences bind the whole too.
    """
    every = rows
    others = rows.clear() if segments is None else segments.unique("segment_id")
    # Licences bind the whole repository; everything else describes config ``default``.
    rows = every.filter(pl.col("split") != SYNTHETIC)
    licences = _counts(every, "licence")
    skips = int(votes["was_cancelled"].sum())
    bound = strictest(
        [*every["licence"], *others["licence"], *(model.get("licence") for model in models)]
    )
    return {
        "rows": len(rows),
        "votes": len(votes) - skips,
        "skips": skips,
        "subjects": rows["subject_id"].drop_nulls().n_unique(),
        "videos": rows["video_id"].drop_nulls().n_unique(),
        "splits": {
            split: _split(rows.filter(pl.col("split") == split))
            for split in SPLITS
            if (rows["split"] == split).any()
        },
        "stratification": _stratification(rows),
        "classes": _classes(rows),
        "undecided": int(rows["expression"].is_null().sum()),
        "only_open_set": int(rows["soft_label"].is_null().sum()),
        "action_units": _action_units(rows),
        "raters": _raters(votes),
        "agreement": _agreement(votes),
        "disagreed": _disagreed(votes),
        "sources": _counts(rows, "source"),
        "synthesis": _synthesis(every),
        "licences": licences,
        "bound_by": licences_of(every, models) + licences_of(others, [], what="segments"),
        "licence": {
            "name": bound.name,
            "hub": bound.hub,
            "commercial": bound.commercial,
            "note": bound.note,
            "unregistered": sorted(
                name
                for name in licences
                if terms(name).name == "unknown" and name not in ("unknown", "none stated")
            ),
        },
        "flags": {
            "label issue": _flagged(rows, "is_label_issue"),
            "open set": _flagged(rows, "is_open_set"),
            "near duplicate": {
                "checked": len(rows),
                "flagged": int(rows["duplicate_of"].is_not_null().sum()),
            },
        },
    }


def curation(rows: pl.DataFrame) -> dict[str, Any]:
    """Compare the label distribution of real faces before and after curation.

    "After" leaves out flagged faces and near duplicates, even if the release keeps them.

    Args:
        rows: every labelled face that a release could hold.
    """
    real = rows.filter(pl.col("source") != "synthetic")
    flagged = pl.col("is_label_issue").fill_null(False) | pl.col("is_open_set").fill_null(False)
    after = real.filter(~flagged & pl.col("duplicate_of").is_null())
    return {
        stage: {"faces": part.height, "shares": label_shares(part), "disputed": _disputed(part)}
        for stage, part in (("before", real), ("after", after))
    }


def label_shares(rows: pl.DataFrame) -> dict[str, float]:
    """Return the mean soft label: each expression's share of the label mass."""
    labels = _labels(rows)
    if not len(labels):
        return dict.fromkeys(EXPRESSIONS, 0.0)
    shares = labels.mean(axis=0)
    return {name: round(float(value), 6) for name, value in zip(EXPRESSIONS, shares, strict=True)}


def _labels(rows: pl.DataFrame) -> np.ndarray:
    """Return the existing soft labels as float64[n, 8]."""
    labels = rows["soft_label"].drop_nulls()
    whole = labels.cast(pl.Array(pl.Float64, len(EXPRESSIONS))).to_numpy()
    return whole.reshape(-1, len(EXPRESSIONS))


def _disputed(rows: pl.DataFrame) -> float | None:
    """Return the share of labelled faces whose largest share is at most half."""
    top = rows["soft_label"].drop_nulls().arr.max()
    return round(float((top <= 0.5).mean()), 6) if len(top) else None  # type: ignore[arg-type]


def _synthesis(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Return label mass and AU counts with and without synthesis.

    ``seen`` counts real faces and ``made`` synthetic ones.
    """
    parts = {
        "seen": rows.filter(pl.col("source") != "synthetic"),
        "made": rows.filter(pl.col("source") == "synthetic"),
    }
    if parts["made"].is_empty():
        return None
    mass = {key: _labels(part).sum(axis=0) for key, part in parts.items()}
    units = {key: {row["code"]: row for row in _action_units(part)} for key, part in parts.items()}
    return {
        "rows": parts["made"].height,
        "share": round(parts["made"].height / rows.height, 6),
        "edits": int(parts["made"]["subject_id"].is_not_null().sum()),
        "expressions": [
            {"name": name} | {key: round(float(mass[key][index]), 4) for key in parts}
            for index, name in enumerate(EXPRESSIONS)
        ],
        "units": [
            {"code": unit.code, "name": unit.name}
            | {key: units[key].get(unit.code, {}).get("present", 0) for key in parts}
            for unit in ACTION_UNITS
            if any(unit.code in units[key] for key in parts)
        ],
    }


def _action_units(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Count measured units; a rater writes NaN for unsupported ones."""
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


def _agreement(votes: pl.DataFrame) -> float | None:
    """Return the share of rater pairs with equal answers, or None.

    The answers of a rater are compared as a set. Skips do not count.
    """
    answers = _answers(votes)
    if answers.is_empty():
        return None
    per_face = (
        answers.group_by("face_id", "answer")
        .len()
        .group_by("face_id")
        .agg(
            same=(pl.col("len") * (pl.col("len") - 1)).sum(),
            pairs=pl.col("len").sum() * (pl.col("len").sum() - 1),
        )
    )
    pairs = int(per_face["pairs"].sum())
    return round(int(per_face["same"].sum()) / pairs, 6) if pairs else None


def _answers(votes: pl.DataFrame) -> pl.DataFrame:
    return votes.filter(pl.col("expressions").list.len() > 0, ~pl.col("was_cancelled")).select(
        "face_id", answer=pl.col("expressions").list.sort().list.join("+")
    )


def _disagreed(votes: pl.DataFrame) -> dict[str, int]:
    """Count faces with two or more votes by number of different answers."""
    counted = (
        _answers(votes)
        .group_by("face_id")
        .agg(pl.len().alias("votes"), pl.col("answer").n_unique().alias("answers"))
        .filter(pl.col("votes") > 1)
        .group_by("answers")
        .len()
        .sort("answers")
    )
    return {str(answers): n for answers, n in counted.iter_rows()}


def _split(rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "subjects": rows["subject_id"].drop_nulls().n_unique(),
        "videos": rows["video_id"].drop_nulls().n_unique(),
        "shares": label_shares(rows),
    }


def _stratification(rows: pl.DataFrame) -> dict[str, float]:
    """Return each split's total variation distance from all real faces.

    The distance compares mean soft labels.

    Synthetic faces do not count: they are in train by rule.
    """
    real = rows.filter(pl.col("source") != "synthetic")
    overall = label_shares(real)
    found = {}
    for split in SPLITS:
        part = real.filter(pl.col("split") == split)
        if len(part) or (rows["split"] == split).any():
            distance = sum(abs(value - overall[name]) for name, value in label_shares(part).items())
            found[split] = round(distance / 2, 6)
    return found


def _classes(rows: pl.DataFrame) -> list[dict[str, Any]]:
    shares = label_shares(rows)
    found = []
    for index, name in enumerate(EXPRESSIONS):
        hard = rows.filter(pl.col("expression") == index)
        by_split = {split: int((hard["split"] == split).sum()) for split in SPLITS}
        found.append({"name": name, "share": shares[name], "faces": len(hard), "splits": by_split})
    return found


def _raters(votes: pl.DataFrame) -> list[dict[str, Any]]:
    found = (
        votes.group_by("rater_kind")
        .agg(
            raters=pl.col("rater_id").n_unique(),
            votes=(~pl.col("was_cancelled")).sum(),
            skips=pl.col("was_cancelled").sum(),
            seconds=pl.col("lead_time_s").median(),
        )
        .sort("rater_kind")
    )
    return [{"kind": row.pop("rater_kind"), **row} for row in found.to_dicts()]


def _flagged(rows: pl.DataFrame, column: str) -> dict[str, int]:
    return {
        "checked": int(rows[column].is_not_null().sum()),
        "flagged": int(rows[column].fill_null(False).sum()),
    }


def _counts(rows: pl.DataFrame, column: str) -> dict[str, int]:
    named = rows.select(pl.col(column).fill_null("none stated"))
    return dict(named.group_by(column).len().sort(column).iter_rows())
