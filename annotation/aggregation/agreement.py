"""How far raters agree beyond chance: Krippendorff's alpha, of everything and of its parts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from annotation.aggregation.votes import VoteTable, tally
from warehouse.errors import TableError
from warehouse.vocabulary import ANSWERS

_FEW = 1e-9


def krippendorff_alpha(votes: pl.DataFrame) -> float | None:
    """Nominal alpha of a long vote table over all ten answers; null where it is not defined.

    A rater of k answers about a face is split 1/k on each, whatever the weights: alpha is about
    people, not about what they count. Faces with one rater say nothing and are left out.

    Args:
        votes: ``face_id, rater_id, label``, as for ``aggregate.soft_labels``.

    Raises:
        TableError: as for ``aggregate.soft_labels``.
    """
    table = tally(votes)
    squares = np.zeros(len(table.face_ids))
    np.add.at(squares, table.answers["face"].to_numpy(), table.answers["share"].to_numpy() ** 2)
    return alpha_from_counts(table.counts("share"), within=squares)


def alpha_by_expression(votes: pl.DataFrame) -> pl.DataFrame:
    """``label, alpha, n_faces`` per answer: nominal alpha of "this one" against "any other".

    ``n_faces``: faces with two raters or more of whom one gave the answer. An answer that a few
    raters give on a few faces has an alpha that a few faces decide: read the two together.
    """
    table = tally(votes)
    counts, raters = table.counts("share"), table.n_raters().astype(float)
    face, share = table.answers["face"].to_numpy(), table.answers["share"].to_numpy()
    rows = []
    for number, label in enumerate(ANSWERS):
        mine = (table.answers["answer"] == number).to_numpy()
        # A rater who gave the answer with share s spreads s and 1 - s; any other is all "other".
        split = np.bincount(
            face[mine], share[mine] ** 2 + (1 - share[mine]) ** 2 - 1, minlength=len(raters)
        )
        pair = np.stack([counts[:, number], raters - counts[:, number]], axis=1)
        seen = int(((raters > 1) & (counts[:, number] > _FEW)).sum())
        rows.append((label, alpha_from_counts(pair, within=raters + split), seen))
    kinds = {"label": pl.String, "alpha": pl.Float64, "n_faces": pl.Int64}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def alpha_by_rater(votes: pl.DataFrame) -> pl.DataFrame:
    """``rater_id, alpha, n_faces``: 1 - what a rater disagrees with the others of the same faces,
    over what chance would; null without such faces. ``n_faces`` have another rater."""
    table = tally(votes)
    counts, raters = table.counts("share"), table.n_raters()
    face, rater, answer = (table.answers[n].to_numpy() for n in ("face", "rater", "answer"))
    share = table.answers["share"].to_numpy()
    others = np.maximum(raters[face] - 1, 1)
    together = share * (counts[face, answer] - share) / others
    shared = table.answers.with_columns(together=pl.Series(together)).filter(
        pl.Series(raters[face] > 1)
    )
    per_face = shared.group_by("face", "rater").agg(pl.col("together").sum())
    mine = per_face.group_by("rater").agg(pl.col("together").mean(), n_faces=pl.len())
    chance = _by_chance(table)
    alpha = 1 - (1 - pl.col("together")) / chance if chance else pl.lit(None, pl.Float64)
    every = pl.DataFrame({"rater": np.unique(rater)})
    found = every.join(mine, on="rater", how="left").sort("rater")
    return found.select(
        rater_id=pl.Series(table.rater_ids, dtype=pl.String),
        alpha=alpha,
        n_faces=pl.col("n_faces").fill_null(0).cast(pl.Int64),
    )


def alpha_over_time(votes: pl.DataFrame, *, every: str = "1w") -> pl.DataFrame:
    """``since, alpha, n_votes`` per period, of the votes cast in it.

    Args:
        votes: with ``updated_at``; votes without a time are left out.
        every: a Polars interval: "1d", "1w", "1mo".
    """
    timed = votes.filter(pl.col("updated_at").is_not_null()).with_columns(
        since=pl.col("updated_at").dt.truncate(every)
    )
    rows = [
        (since, krippendorff_alpha(part), part.select("face_id", "rater_id").n_unique())
        for (since,), part in timed.sort("since").group_by("since", maintain_order=True)
    ]
    kinds = pl.Schema(
        {"since": timed.schema["since"], "alpha": pl.Float64(), "n_votes": pl.Int64()}
    )
    return pl.DataFrame(rows, schema=kinds, orient="row")


def alpha_of_numbers(
    values: pl.DataFrame, *, metric: Literal["ordinal", "interval"] = "ordinal"
) -> float | None:
    """Alpha of numbers raters gave; null where it is not defined.

    The interval metric is the squared difference. The ordinal metric of a pair of ranks is the
    squared number of values between their middles, which is the interval metric on mid-ranks of
    the values that can be paired (Krippendorff, 2011, "Computing Krippendorff's
    Alpha-Reliability").

    Args:
        values: ``face_id, rater_id, value``, one row per face and rater; rows without a finite
            value are left out.

    Raises:
        TableError: a column is missing, or a rater gave two values for one face.
    """
    if missing := {"face_id", "rater_id", "value"} - set(values.columns):
        raise TableError(
            "the columns face_id, rater_id and value",
            got=f"none called {', '.join(sorted(missing))}",
            hint="give one row per face and rater",
        )
    said = values.with_columns(pl.col("value").cast(pl.Float64))
    said = said.filter(pl.col("value").is_finite().fill_null(False))
    if said.select("face_id", "rater_id").is_duplicated().any():
        raise TableError(
            "one value per face and rater", got="several", hint="keep the newest of each"
        )
    paired = said.filter(pl.len().over("face_id") > 1)
    if metric == "ordinal":
        paired = paired.with_columns(pl.col("value").rank("average"))
    spread = pl.len() * (pl.col("value") ** 2).sum() - pl.col("value").sum() ** 2
    total = paired.height
    within = (
        paired.group_by("face_id").agg(d=spread / (pl.len() - 1)).select(pl.col("d").sum()).item()
    )
    across = paired.select(d=spread).item() / (total - 1) if total > 1 else 0.0
    if across <= _FEW * max(total, 1) ** 2:
        return None
    return float(1 - within / across)


def alpha_by_unit(au_votes: pl.DataFrame) -> pl.DataFrame:
    """``unit, alpha`` per action unit: ordinal alpha of its intensities.

    Args:
        au_votes: ``face_id, rater_id, unit, intensity``.
    """
    rows = [
        (unit, alpha_of_numbers(part.rename({"intensity": "value"})))
        for (unit,), part in au_votes.sort("unit").group_by("unit", maintain_order=True)
    ]
    return pl.DataFrame(rows, schema={"unit": pl.Int64, "alpha": pl.Float64}, orient="row")


def alpha_from_counts(counts: np.ndarray, *, within: np.ndarray | None = None) -> float | None:
    """Krippendorff's nominal alpha from answers counted per face (Hayes and Krippendorff, 2007,
    doi:10.1080/19312450709336664), in one vectorised pass:

    1 - (N - 1) sum_i [(n_i^2 - sum_c n_ic^2 - n_i + w_i) / (n_i - 1)] / (N^2 - sum_c N_c^2)

    Args:
        counts: float[n_faces, n_answers], at least 0: raters per answer.
        within: float[n_faces], w_i: sum over raters of their squared shares, which keeps a rater
            of several answers from disagreeing with himself. Default n_i: one answer each, and
            the formula is the textbook one.

    Returns:
        At most 1; 0 is chance. ``None`` without two raters on one face, or when all votes are the
        same answer: there is nothing that chance could have made different.
    """
    raters = counts.sum(axis=1)
    own = raters if within is None else within
    several = raters > 1 + _FEW
    counts, raters, own = counts[several], raters[several], own[several]
    total, per_answer = raters.sum(), counts.sum(axis=0)
    by_chance = total**2 - (per_answer**2).sum()
    if by_chance <= _FEW * max(total, 1.0) ** 2:
        return None
    apart = raters**2 - (counts**2).sum(axis=1) - raters + own
    return float(1 - (total - 1) * (apart / (raters - 1)).sum() / by_chance)


def _by_chance(table: VoteTable) -> float | None:
    """The disagreement of two votes drawn from all votes that can be paired."""
    counts = table.counts("share")[table.n_raters() > 1]
    total, per_answer = counts.sum(), counts.sum(axis=0)
    apart = total**2 - (per_answer**2).sum()
    return float(apart / (total * (total - 1))) if apart > _FEW * max(total, 1.0) ** 2 else None
