"""Active learning: value of one more vote, and labels to re-annotate."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import polars as pl

from annotation.aggregation.votes import tally
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, EXPRESSIONS

MACHINE_VOTES = 2.0
"""Votes that the machine rater's distribution counts as. Chosen among 1, 2, 4 and 8 on FER+; see
tests/benchmarks/results/queue.md."""

_POSE_BIN = 15.0
"""Width of a head-pose bin, degrees."""

_FLOOR = 1e-6


def allocate_votes(
    ratings: pl.DataFrame,
    votes: pl.DataFrame,
    queued: pl.DataFrame,
    *,
    vote_counts: pl.DataFrame,
    budget: int,
) -> pl.DataFrame:
    """Allocate a budget of votes to the queued faces, one by one.

    Faces queued by an audit are served first. Among the rest, each vote goes to the face with the
    largest ``value_of_next_vote``, up to the votes wanted of that face.

    Args:
        queued: ``face_id, reason, wanted_votes``, by descending priority.
        vote_counts: ``face_id, n_votes``: the raters of each face so far.

    Returns:
        ``face_id`` and ``granted``: the total votes the face may have, of faces with new votes.
    """
    counts = vote_counts.select("face_id", "n_votes")
    rows = queued.join(counts, on="face_id", how="left").with_columns(
        pl.col("n_votes").fill_null(0)
    )
    missing = (rows["wanted_votes"] - rows["n_votes"]).clip(0).to_numpy()
    most = int(missing.max()) if len(missing) else 0
    posterior, strength = _posterior(rows["face_id"].to_list(), ratings, votes)
    steps = np.arange(most)
    value = value_of_next_vote(posterior, strength[:, None] + steps[None, :])
    value[steps[None, :] >= missing[:, None]] = -np.inf
    value[(rows["reason"] == "audit").to_numpy()] += 1.0
    # The value of a face falls with every vote, so the best cells are the first of each row.
    order = np.argsort(-value, axis=None, kind="stable")[:budget]
    chosen = order[np.isfinite(value.ravel()[order])]
    granted = np.bincount(chosen // max(most, 1), minlength=len(rows))
    return (
        rows.select("face_id", granted=pl.col("n_votes") + pl.Series(granted, dtype=pl.Int64))
        .filter(pl.Series(granted > 0))
        .cast({"granted": pl.Int64})
    )


def value_of_next_vote(posterior: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Expected decrease of a soft label's squared error by one more vote.

    Under a Dirichlet posterior of total ``strength`` s, the mean p has the expected squared error
    (1 - sum p^2) / (s + 1). One more answer lowers it by (1 - sum p^2) / (s + 1)^2.

    Args:
        posterior: float[n, answers], rows sum to 1.
        strength: float[n, k], votes of the machine and of people.

    Returns:
        float[n, k].
    """
    variance = 1 - (posterior**2).sum(axis=1)
    return variance[:, None] / (strength + 1) ** 2


def relabel_priority(faces: pl.Series, ratings: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """Compute ``face_id, priority`` of voted faces: 1 - ActiveLab score."""
    # Scores depend on the raters' agreement on all faces, not only on the given ones.
    all_ids = sorted({*faces, *votes["face_id"]})
    scores = activelab_scores(_counts(all_ids, votes), _prior(all_ids, ratings))
    priority = pl.DataFrame({"face_id": all_ids, "priority": np.clip(1 - scores, 0, 1)})
    return priority.filter(pl.col("face_id").is_in(faces.to_list()))


def activelab_scores(counts: np.ndarray, machine: np.ndarray) -> np.ndarray:
    """Compute ActiveLab scores by cleanlab.

    Goh and Mueller, 2023, arXiv:2301.11856.

    Votes are assigned to anonymous annotators by a fixed shuffle per face. In class order, each
    annotator would know one class only.

    Args:
        counts: float[n, classes], votes so far; fractions are rounded.
        machine: float[n, classes], a classifier's distribution; rows sum to 1.

    Returns:
        float[n] in [0, 1]; low: annotate next.
    """
    voted = counts.sum(axis=1) > 0
    machine = np.clip(machine, _FLOOR, None)
    machine = machine / machine.sum(axis=1, keepdims=True)
    scores = np.zeros(len(counts))
    if not voted.any():
        # Without votes, ActiveLab starts with the classifier's confidence.
        return machine.max(axis=1)
    from cleanlab.multiannotator import get_active_learning_scores

    # cleanlab prints warnings about labels with few votes, which are expected here.
    with contextlib.redirect_stdout(io.StringIO()):
        labeled, unlabeled = get_active_learning_scores(
            labels_multiannotator=_annotator_table(counts[voted]),
            pred_probs=machine[voted],
            pred_probs_unlabeled=machine[~voted] if (~voted).any() else None,
        )
    scores[voted] = labeled
    if (~voted).any():
        scores[~voted] = unlabeled
    return scores


def machine_terms(candidates: pl.DataFrame, ratings: pl.DataFrame) -> pl.DataFrame:
    """Compute ``uncertainty`` and ``rarity`` in [0, 1], null if unknown.

    Rarity is a mean over the known properties of a face (expression, action units, pose, subject):
    how much less common its value is than the most common one.
    """
    rated = candidates.join(_mean_rating(ratings), on="face_id", how="left").sort("face_id")
    known = rated["p0"].is_not_null()
    predicted = rated.select(pl.col("^p\\d+$").fill_null(0.0)).to_numpy()
    logs = np.log2(predicted, out=np.zeros_like(predicted), where=predicted > 0)
    entropy = np.clip(-(predicted * logs).sum(axis=1) / np.log2(len(EXPRESSIONS)), 0, 1)
    rarities = [
        pl.Series("r0", predicted @ _rarity(predicted)).set(~known, None),
        *_unit_rarity(rated),
        *_bin_rarity(rated),
    ]
    return rated.select(
        "face_id",
        uncertainty=pl.Series(entropy).set(~known, None),
        rarity=pl.DataFrame(rarities).select(pl.mean_horizontal(pl.all())).to_series(),
    )


def _annotator_table(counts: np.ndarray) -> np.ndarray:
    """float[n, m]: one column per anonymous annotator, NaN without an answer."""
    whole = np.rint(counts).astype(int)
    width = int(whole.sum(axis=1).max())
    table = np.full((len(whole), width), np.nan)
    rng = np.random.default_rng(0)
    for row, votes in enumerate(whole):
        answers = np.repeat(np.arange(whole.shape[1]), votes)
        table[row, rng.permutation(width)[: len(answers)]] = rng.permutation(answers)
    return table[:, ~np.isnan(table).all(axis=0)]


def _prior(faces: list[str], ratings: pl.DataFrame) -> np.ndarray:
    """The machine's prediction float[n, 10]; uniform without a rating."""
    width = len(EXPRESSIONS)
    predicted = pl.DataFrame({"face_id": faces}).join(
        _mean_rating(ratings), on="face_id", how="left", maintain_order="left"
    )
    prior = np.zeros((len(faces), len(ANSWERS)))
    prior[:, :width] = predicted.select(pl.col("^p\\d+$").fill_null(1 / width)).to_numpy()
    return prior


def _counts(faces: list[str], votes: pl.DataFrame) -> np.ndarray:
    """Raters per answer, float[n, 10]; each of k answers counts 1/k."""
    table = tally(votes.drop("weight", strict=False))
    row = {face: number for number, face in enumerate(table.face_ids)}
    counts = np.vstack([table.counts("share"), np.zeros((1, len(ANSWERS)))])
    return counts[[row.get(face, -1) for face in faces]]


def _posterior(
    faces: list[str], ratings: pl.DataFrame, votes: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean float[n, 10] and strength in votes, float[n]."""
    counts = _counts(faces, votes)
    strength = MACHINE_VOTES + counts.sum(axis=1)
    return (MACHINE_VOTES * _prior(faces, ratings) + counts) / strength[:, None], strength


def _mean_rating(ratings: pl.DataFrame) -> pl.DataFrame:
    """One row per rated face: ``p0 … p7``, and ``au0 …`` if present."""
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


def _rarity(mass: np.ndarray) -> np.ndarray:
    expected = mass.sum(axis=0)
    return 1 - expected / max(expected.max(initial=0.0), 1e-12)


def _unit_rarity(rated: pl.DataFrame) -> list[pl.Series]:
    if "au0" not in rated.columns:
        return []
    intensity = rated.select(pl.col("^au\\d+$").fill_null(0.0).clip(0, 1)).to_numpy()
    total = intensity.sum(axis=1)
    rarity = (intensity @ _rarity(intensity)) / np.maximum(total, 1e-12)
    return [pl.Series("r1", rarity).set(pl.Series(total < 1e-9), None)]


def _bin_rarity(rated: pl.DataFrame) -> list[pl.Series]:
    pose = [
        (pl.col(name) / _POSE_BIN).round().alias(name)
        for name in ("yaw", "pitch")
        if name in rated.columns
    ]
    keys = [pose] if pose else []
    keys += [[pl.col("subject_id")]] if "subject_id" in rated.columns else []
    rarities = []
    for number, key in enumerate(keys, start=2):
        binned = rated.select(key)
        size = binned.select(n=pl.len().over(binned.columns))["n"]
        known = binned.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
        largest = size.filter(known).max()
        share = size / largest if largest else size.cast(pl.Float64)
        rarities.append((1 - share).clip(0, 1).set(~known, None).alias(f"r{number}"))
    return rarities
