"""The numbers of a release, counted once from its rows and votes; card and report print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from warehouse.licences import strictest, terms
from warehouse.releases.coverage import action_units, shares, synthesis
from warehouse.releases.eligibility import bound_by
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS

Summary = dict[str, Any]


def summarise(
    rows: pl.DataFrame, votes: pl.DataFrame, *, models: Sequence[Mapping[str, Any]] = ()
) -> Summary:
    """Plain numbers, ready for JSON.

    Args:
        rows: the released faces as ``contract.fit_rows`` leaves them, with ``split``.
        votes: as ``contract.fit_votes`` leaves them.
        models: mappings with ``name`` and ``licence``: weights that touched the rows.
    """
    licences = _counts(rows, "licence")
    skips = int(votes["was_cancelled"].sum())
    bound = strictest([*rows["licence"], *(model.get("licence") for model in models)])
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
        "action_units": action_units(rows),
        "raters": _raters(votes),
        "agreement": agreement(votes),
        "disagreed": _disagreed(votes),
        "sources": _counts(rows, "source"),
        "synthesis": synthesis(rows),
        "licences": licences,
        "bound_by": bound_by(rows, models),
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
        "subjects": rows["subject_id"].drop_nulls().n_unique(),
        "videos": rows["video_id"].drop_nulls().n_unique(),
        "shares": shares(rows),
    }


def _stratification(rows: pl.DataFrame) -> dict[str, float]:
    """Total variation distance of each split's mean soft label from that of all, 0 to 1.

    Made faces are in train by rule and do not count.
    """
    seen = rows.filter(pl.col("source") != "synthetic")
    whole = shares(seen)
    found = {}
    for split in SPLITS:
        part = seen.filter(pl.col("split") == split)
        if len(part) or (rows["split"] == split).any():
            apart = sum(abs(value - whole[name]) for name, value in shares(part).items())
            found[split] = round(apart / 2, 6)
    return found


def _classes(rows: pl.DataFrame) -> list[dict[str, Any]]:
    mass = shares(rows)
    found = []
    for index, name in enumerate(EXPRESSIONS):
        hard = rows.filter(pl.col("expression") == index)
        by_split = {split: int((hard["split"] == split).sum()) for split in SPLITS}
        found.append({"name": name, "share": mass[name], "faces": len(hard), "splits": by_split})
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
