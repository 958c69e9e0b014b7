"""How far raters agree beyond chance."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregate.votes import tally


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
    several = raters > 1 + 1e-9
    counts, raters, own = counts[several], raters[several], own[several]
    total, per_answer = raters.sum(), counts.sum(axis=0)
    by_chance = total**2 - (per_answer**2).sum()
    if by_chance <= 1e-9 * max(total, 1.0) ** 2:
        return None
    apart = raters**2 - (counts**2).sum(axis=1) - raters + own
    return float(1 - (total - 1) * (apart / (raters - 1)).sum() / by_chance)
