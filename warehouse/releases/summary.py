"""The numbers of a release, counted once from its rows and votes; card and report print them."""

from __future__ import annotations

from typing import Any

import polars as pl

from warehouse.licences import strictest, terms
from warehouse.releases.contract import SPLITS
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

AU_PRESENT = 0.25
"""An action unit counts as present from intensity B upwards."""

Summary = dict[str, Any]


def summarise(rows: pl.DataFrame, votes: pl.DataFrame) -> Summary:
    """Plain numbers, ready for JSON.

    Args:
        rows: the released faces as ``contract.fit_rows`` leaves them, with ``split``.
        votes: as ``contract.fit_votes`` leaves them.
    """
    licences = _counts(rows, "licence")
    skips = int(votes["was_cancelled"].sum())
    bound = strictest(rows["licence"].to_list())
    return {
        "rows": len(rows),
        "votes": len(votes) - skips,
        "skips": skips,
        "subjects": rows["subject_id"].n_unique(),
        "videos": rows["video_id"].n_unique(),
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
        "agreement": agreement(votes),
        "disagreed": _disagreed(votes),
        "sources": _counts(rows, "source"),
        "licences": licences,
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


def agreement(votes: pl.DataFrame) -> float | None:
    """Share of pairs of raters on the same face that gave the same answers; None without a pair.

    Several answers of one rater count as a set. Skipped votes do not count.
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
    """Faces with two votes or more, by the number of different answers they got."""
    spread = (
        _answers(votes)
        .group_by("face_id")
        .agg(pl.len().alias("votes"), pl.col("answer").n_unique().alias("answers"))
        .filter(pl.col("votes") > 1)
        .group_by("answers")
        .len()
        .sort("answers")
    )
    return {str(answers): n for answers, n in spread.iter_rows()}


def _split(rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "subjects": rows["subject_id"].n_unique(),
        "videos": rows["video_id"].n_unique(),
        "shares": _shares(rows),
    }


def _shares(rows: pl.DataFrame) -> dict[str, float]:
    """Mean soft label: what part of the label mass each expression holds."""
    labels = rows["soft_label"].drop_nulls()
    if labels.is_empty():
        return dict.fromkeys(EXPRESSIONS, 0.0)
    mass = labels.to_numpy().astype("float64").mean(axis=0)
    return {name: round(float(value), 6) for name, value in zip(EXPRESSIONS, mass, strict=True)}


def _stratification(rows: pl.DataFrame) -> dict[str, float]:
    """Total variation distance of each split's mean soft label from that of all, 0 to 1."""
    whole = _shares(rows)
    found = {}
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if len(part):
            apart = sum(abs(value - whole[name]) for name, value in _shares(part).items())
            found[split] = round(apart / 2, 6)
    return found


def _classes(rows: pl.DataFrame) -> list[dict[str, Any]]:
    mass = _shares(rows)
    found = []
    for index, name in enumerate(EXPRESSIONS):
        hard = rows.filter(pl.col("expression") == index)
        by_split = {split: int((hard["split"] == split).sum()) for split in SPLITS}
        found.append({"name": name, "share": mass[name], "faces": len(hard), "splits": by_split})
    return found


def _action_units(rows: pl.DataFrame) -> list[dict[str, Any]]:
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
