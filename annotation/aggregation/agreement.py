"""Agreement between raters: pairwise overlap and Krippendorff's alpha."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from annotation.aggregation.votes import FloatArray, VoteTable, tally
from warehouse.errors import TableError
from warehouse.vocabulary import ANSWERS

_EPSILON = 1e-9
_DIGITS = 12


def overlap(votes: VoteTable) -> pl.DataFrame:
    """Compare each rater of each face with the other raters of that face.

    Two raters overlap by the common part of their answers, the sum over answers of the smaller
    share: 1 for equal answers, 0 for none in common, 1/2 for {anger} and {anger, disgust}.

    Returns:
        One row per ``face`` and ``rater`` with ``n_others`` and ``overlap`` in [0, 1]: the mean
        over the other raters, null without any. The mean of ``overlap`` over the raters of a face
        is the mean over its rater pairs.
    """
    raters = pl.len().over("face")
    pairs = (
        votes.answers.select("face", "rater")
        .unique()
        .with_columns(n_others=raters.cast(pl.Int64) - 1)
    )
    # Within one face and answer, sorted by share, the smaller share of a pair comes first. A
    # running sum then gives the total of each rater without listing the pairs.
    cell = ("face", "answer")
    share = pl.col("share")
    common = (
        votes.answers.sort("face", "answer", "share", "rater")
        .with_columns(
            common=share.cum_sum().over(cell)
            - share
            + share * (pl.len().over(cell).cast(pl.Int64) - 1 - pl.int_range(pl.len()).over(cell))
        )
        .group_by("face", "rater")
        .agg(pl.col("common").sum())
    )
    mean = (pl.col("common") / pl.col("n_others")).clip(0, 1)
    return (
        pairs.join(common, on=["face", "rater"], how="left")
        .with_columns(overlap=pl.when(pl.col("n_others") > 0).then(mean))
        .drop("common")
        .sort("face", "rater")
    )


def face_agreement(votes: VoteTable) -> pl.Series:
    """Mean overlap over rater pairs: Float64[n_faces], null without a pair."""
    means = overlap(votes).group_by("face").agg(pl.col("overlap").mean()).sort("face")
    # The last bits depend on the order of the raters, which differs between homes.
    return means["overlap"].round(_DIGITS).alias("agreement")


def krippendorff_alpha(votes: pl.DataFrame) -> float | None:
    """Compute nominal alpha over all ten answers; ``None`` if undefined.

    Each of the k answers of a rater about a face counts 1/k; weights are ignored. Faces with one
    rater are left out.

    Args:
        votes: ``face_id, rater_id, label``, as for ``soft_labels``.

    Raises:
        TableError: as for ``soft_labels``.
    """
    table = tally(votes)
    squares = np.zeros(len(table.face_ids))
    np.add.at(squares, table.answers["face"].to_numpy(), table.answers["share"].to_numpy() ** 2)
    return alpha_from_counts(table.counts("share"), within=squares)


def alpha_by_expression(votes: pl.DataFrame) -> pl.DataFrame:
    """Compute ``label, alpha, n_faces`` per answer, one against all others.

    ``n_faces`` counts faces with at least two raters, of which at least one gave the answer. With
    few such faces, alpha is unreliable.
    """
    table = tally(votes)
    counts, raters = table.counts("share"), table.n_raters().astype(float)
    face, share = table.answers["face"].to_numpy(), table.answers["share"].to_numpy()
    rows = []
    for index, label in enumerate(ANSWERS):
        given = (table.answers["answer"] == index).to_numpy()
        # A rater who gave the answer with share s is split into s and 1 - s; all others are 1.
        split = np.bincount(
            face[given], share[given] ** 2 + (1 - share[given]) ** 2 - 1, minlength=len(raters)
        )
        pair = np.stack([counts[:, index], raters - counts[:, index]], axis=1)
        n_faces = int(((raters > 1) & (counts[:, index] > _EPSILON)).sum())
        rows.append((label, alpha_from_counts(pair, within=raters + split), n_faces))
    schema = {"label": pl.String, "alpha": pl.Float64, "n_faces": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def alpha_by_rater(votes: pl.DataFrame) -> pl.DataFrame:
    """Compute ``rater_id, alpha, n_faces`` of each rater against the others.

    alpha is 1 - disagreement with the other raters of the same faces / disagreement by chance;
    null without such faces. ``n_faces`` counts them.
    """
    table = tally(votes)
    counts, raters = table.counts("share"), table.n_raters()
    face, rater, answer = (table.answers[n].to_numpy() for n in ("face", "rater", "answer"))
    share = table.answers["share"].to_numpy()
    others = np.maximum(raters[face] - 1, 1)
    agreed = share * (counts[face, answer] - share) / others
    shared = table.answers.with_columns(agreed=pl.Series(agreed)).filter(
        pl.Series(raters[face] > 1)
    )
    per_face = shared.group_by("face", "rater").agg(pl.col("agreed").sum())
    per_rater = per_face.group_by("rater").agg(pl.col("agreed").mean(), n_faces=pl.len())
    chance = _chance_disagreement(table)
    alpha = 1 - (1 - pl.col("agreed")) / chance if chance else pl.lit(None, pl.Float64)
    all_raters = pl.DataFrame({"rater": np.unique(rater)})
    return (
        all_raters.join(per_rater, on="rater", how="left")
        .sort("rater")
        .select(
            rater_id=pl.Series(table.rater_ids, dtype=pl.String),
            alpha=alpha,
            n_faces=pl.col("n_faces").fill_null(0).cast(pl.Int64),
        )
    )


def alpha_over_time(votes: pl.DataFrame, *, every: str = "1w") -> pl.DataFrame:
    """Compute ``since, alpha, n_votes`` per period, of the votes cast in it.

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
    schema = pl.Schema(
        {"since": timed.schema["since"], "alpha": pl.Float64(), "n_votes": pl.Int64()}
    )
    return pl.DataFrame(rows, schema=schema, orient="row")


def alpha_of_numbers(
    values: pl.DataFrame, *, metric: Literal["ordinal", "interval"] = "ordinal"
) -> float | None:
    """Compute alpha of numeric ratings; ``None`` where it is undefined.

    The interval metric is the squared difference. The ordinal metric is the interval metric on
    mid-ranks of the values that can be paired (Krippendorff, 2011, "Computing Krippendorff's
    Alpha-Reliability").

    Args:
        values: ``face_id, rater_id, value``, one row per face and rater; rows without a finite
            value are left out.

    Raises:
        TableError: a column is missing, or a rater has two values for one face.
    """
    if missing := {"face_id", "rater_id", "value"} - set(values.columns):
        raise TableError(
            "Columns are missing in the ratings",
            got=", ".join(sorted(missing)),
            hint="give one row per face and rater with face_id, rater_id and value",
        )
    finite = values.with_columns(pl.col("value").cast(pl.Float64))
    finite = finite.filter(pl.col("value").is_finite().fill_null(False))
    if finite.select("face_id", "rater_id").is_duplicated().any():
        raise TableError(
            "A rater has several values for one face",
            got="rows with the same face_id and rater_id",
            hint="keep the newest row of each",
        )
    paired = finite.filter(pl.len().over("face_id") > 1)
    if metric == "ordinal":
        paired = paired.with_columns(pl.col("value").rank("average"))
    squares = pl.len() * (pl.col("value") ** 2).sum() - pl.col("value").sum() ** 2
    total = paired.height
    per_face = paired.group_by("face_id", maintain_order=True).agg(d=squares / (pl.len() - 1))
    within = per_face.select(pl.col("d").sum()).item()
    across = paired.select(d=squares).item() / (total - 1) if total > 1 else 0.0
    if across <= _EPSILON * max(total, 1) ** 2:
        return None
    return float(1 - within / across)


def alpha_by_unit(au_votes: pl.DataFrame) -> pl.DataFrame:
    """Compute ``unit, alpha`` per action unit: ordinal alpha of intensities.

    Args:
        au_votes: ``face_id, rater_id, unit, intensity``.
    """
    rows = [
        (unit, alpha_of_numbers(part.rename({"intensity": "value"})))
        for (unit,), part in au_votes.sort("unit").group_by("unit", maintain_order=True)
    ]
    return pl.DataFrame(rows, schema={"unit": pl.Int64, "alpha": pl.Float64}, orient="row")


def alpha_from_counts(counts: FloatArray, *, within: FloatArray | None = None) -> float | None:
    """Compute nominal alpha from answer counts per face.

    Hayes and Krippendorff, 2007, doi:10.1080/19312450709336664:

    1 - (N - 1) sum_i [(n_i^2 - sum_c n_ic^2 - n_i + w_i) / (n_i - 1)] / (N^2 - sum_c N_c^2)

    Args:
        counts: float[n_faces, n_answers], at least 0: raters per answer.
        within: float[n_faces], w_i: sum over raters of their squared shares, so that several
            answers of one rater do not count as disagreement. Default n_i: one answer per rater,
            the textbook formula.

    Returns:
        At most 1; 0 is chance. ``None`` if no face has two raters or all votes are the same answer.
    """
    raters = counts.sum(axis=1)
    own = raters if within is None else within
    several = raters > 1 + _EPSILON
    counts, raters, own = counts[several], raters[several], own[several]
    total, per_answer = raters.sum(), counts.sum(axis=0)
    by_chance = total**2 - (per_answer**2).sum()
    if by_chance <= _EPSILON * max(total, 1.0) ** 2:
        return None
    observed = raters**2 - (counts**2).sum(axis=1) - raters + own
    return float(1 - (total - 1) * (observed / (raters - 1)).sum() / by_chance)


def _chance_disagreement(table: VoteTable) -> float | None:
    """Disagreement of two votes drawn from all votes that can be paired."""
    counts = table.counts("share")[table.n_raters() > 1]
    total, per_answer = counts.sum(), counts.sum(axis=0)
    by_chance = total**2 - (per_answer**2).sum()
    if by_chance <= _EPSILON * max(total, 1.0) ** 2:
        return None
    return float(by_chance / (total * (total - 1)))
