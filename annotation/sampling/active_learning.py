"""What one more vote on a face is worth, and what a machine's rating says of it."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregation.votes import tally
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, EXPRESSIONS

MACHINE_VOTES = 2.0
"""How many votes the machine's distribution counts as, before anybody has answered. Chosen among
1, 2, 4 and 8 on FER+: see tests/benchmarks/results/queue.md."""

_POSE_BIN = 15.0


def spend(
    ratings: pl.DataFrame,
    votes: pl.DataFrame,
    queued: pl.DataFrame,
    *,
    heard: pl.DataFrame,
    budget: int,
) -> pl.DataFrame:
    """``face_id`` and ``granted``: the votes each face may have when ``budget`` more are spent.

    Faces asked again are served first. Of the rest, each vote goes where ``value_of_next_vote``
    is largest at that moment, up to the votes wanted of the face.

    Args:
        queued: ``face_id, reason, wanted_votes``, by falling priority.
        heard: ``face_id, n_votes``: the raters each face has had.
    """
    rows = queued.join(heard.select("face_id", "n_votes"), on="face_id", how="left").with_columns(
        pl.col("n_votes").fill_null(0)
    )
    room = (rows["wanted_votes"] - rows["n_votes"]).clip(0).to_numpy()
    most = int(room.max()) if len(room) else 0
    posterior, strength = _posterior(rows["face_id"].to_list(), ratings, votes)
    steps = np.arange(most)
    value = value_of_next_vote(posterior, strength[:, None] + steps[None, :])
    value[steps[None, :] >= room[:, None]] = -np.inf
    value[(rows["reason"] == "audit").to_numpy()] += 1.0
    # A face's value falls with every vote, so the best cells are the first ones of each row.
    order = np.argsort(-value, axis=None, kind="stable")[:budget]
    chosen = order[np.isfinite(value.ravel()[order])]
    granted = np.bincount(chosen // max(most, 1), minlength=len(rows))
    return (
        rows.select("face_id", granted=pl.col("n_votes") + pl.Series(granted, dtype=pl.Int64))
        .filter(pl.Series(granted > 0))
        .cast({"granted": pl.Int64})
    )


def value_of_next_vote(posterior: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Expected fall of the squared error of a soft label by one more vote.

    Under a Dirichlet belief of total ``strength`` s the posterior mean p errs by
    (1 - sum p^2) / (s + 1) in expectation, and one more answer takes (1 - sum p^2) / (s + 1)^2
    of it away.

    Args:
        posterior: float[n, answers], rows sum to 1.
        strength: float[n, k]: the machine's votes and people's.

    Returns:
        float[n, k].
    """
    spread = 1 - (posterior**2).sum(axis=1)
    return spread[:, None] / (strength + 1) ** 2


def relabel_priority(faces: pl.Series, ratings: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """``face_id, priority`` in [0, 1] of voted faces: 1 - the ActiveLab score."""
    from annotation.sampling.relabel import activelab_scores

    # Scores lean on how raters do on all faces, not only on those asked about.
    everyone = sorted({*faces, *votes["face_id"]})
    scores = activelab_scores(_counts(everyone, votes), _prior(everyone, ratings))
    found = pl.DataFrame({"face_id": everyone, "priority": np.clip(1 - scores, 0, 1)})
    return found.filter(pl.col("face_id").is_in(faces.to_list()))


def machine_terms(asked: pl.DataFrame, ratings: pl.DataFrame) -> pl.DataFrame:
    """``uncertainty`` and ``rarity`` in [0, 1] of each face of ``asked`` that tells them.

    Rarity is the mean over what is known of a face (expression, action units, pose, subject) of
    how much less common it is than the most common of its kind.
    """
    rated = asked.join(_mean_rating(ratings), on="face_id", how="left").sort("face_id")
    known = rated["p0"].is_not_null()
    predicted = rated.select(pl.col("^p\\d+$").fill_null(0.0)).to_numpy()
    logs = np.log2(predicted, out=np.zeros_like(predicted), where=predicted > 0)
    doubt = np.clip(-(predicted * logs).sum(axis=1) / np.log2(len(EXPRESSIONS)), 0, 1)
    parts = [
        pl.Series("r0", predicted @ _scarcity(predicted)).set(~known, None),
        *_rare_units(rated),
        *_rare_bins(rated),
    ]
    return rated.select(
        "face_id",
        uncertainty=pl.Series(doubt).set(~known, None),
        rarity=pl.DataFrame(parts).select(pl.mean_horizontal(pl.all())).to_series(),
    )


def _prior(faces: list[str], ratings: pl.DataFrame) -> np.ndarray:
    """float[n, 10]: the machine's belief; without a rating every expression is as likely."""
    width = len(EXPRESSIONS)
    believed = pl.DataFrame({"face_id": faces}).join(
        _mean_rating(ratings), on="face_id", how="left", maintain_order="left"
    )
    prior = np.zeros((len(faces), len(ANSWERS)))
    prior[:, :width] = believed.select(pl.col("^p\\d+$").fill_null(1 / width)).to_numpy()
    return prior


def _counts(faces: list[str], votes: pl.DataFrame) -> np.ndarray:
    """float[n, 10]: raters per answer, one of several answers counting its part."""
    table = tally(votes.drop("weight", strict=False))
    row = {face: number for number, face in enumerate(table.face_ids)}
    counts = np.vstack([table.counts("share"), np.zeros((1, len(ANSWERS)))])
    return counts[[row.get(face, -1) for face in faces]]


def _posterior(
    faces: list[str], ratings: pl.DataFrame, votes: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """The belief of machine and votes, float[n, 10], and its strength in votes, float[n]."""
    counts = _counts(faces, votes)
    strength = MACHINE_VOTES + counts.sum(axis=1)
    return (MACHINE_VOTES * _prior(faces, ratings) + counts) / strength[:, None], strength


def _mean_rating(ratings: pl.DataFrame) -> pl.DataFrame:
    """One row per rated face: ``p0 … p7``, and ``au0 …`` where the ratings have units."""
    columns = _flat(ratings, "expression", "p", len(EXPRESSIONS))
    if "au" in ratings.columns:
        columns += _flat(ratings, "au", "au", len(ACTION_UNITS))
    flat = ratings.select("face_id", *columns)
    names = [f"p{i}" for i in range(len(EXPRESSIONS))]
    usable = pl.all_horizontal(pl.col(name).is_finite().fill_null(False) for name in names)
    flat = flat.filter(usable).fill_nan(None).sort("face_id", *names)
    return flat.group_by("face_id", maintain_order=True).agg(pl.all().mean())


def _flat(ratings: pl.DataFrame, column: str, prefix: str, width: int) -> list[pl.Expr]:
    array = pl.col(column).cast(pl.Array(pl.Float64, width))
    return [array.arr.get(i).alias(f"{prefix}{i}") for i in range(width)]


def _scarcity(mass: np.ndarray) -> np.ndarray:
    expected = mass.sum(axis=0)
    return 1 - expected / max(expected.max(initial=0.0), 1e-12)


def _rare_units(rated: pl.DataFrame) -> list[pl.Series]:
    if "au0" not in rated.columns:
        return []
    strength = rated.select(pl.col("^au\\d+$").fill_null(0.0).clip(0, 1)).to_numpy()
    total = strength.sum(axis=1)
    rare = (strength @ _scarcity(strength)) / np.maximum(total, 1e-12)
    return [pl.Series("r1", rare).set(pl.Series(total < 1e-9), None)]


def _rare_bins(rated: pl.DataFrame) -> list[pl.Series]:
    bins = [
        (pl.col(name) / _POSE_BIN).round().alias(name)
        for name in ("yaw", "pitch")
        if name in rated.columns
    ]
    keys = [bins] if bins else []
    keys += [[pl.col("subject_id")]] if "subject_id" in rated.columns else []
    found = []
    for number, key in enumerate(keys, start=2):
        binned = rated.select(key)
        size = binned.select(n=pl.len().over(binned.columns))["n"]
        whole = binned.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
        most = size.filter(whole).max()
        share = size / most if most else size.cast(pl.Float64)
        found.append((1 - share).clip(0, 1).set(~whole, None).alias(f"r{number}"))
    return found
