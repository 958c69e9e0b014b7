"""Label uncertainty: expected entropy and error, and votes needed."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregation.dirichlet_mixture import DirichletMixture, Mixture
from annotation.aggregation.votes import tally
from warehouse.errors import SettingsError

_SCHEMA = pl.Schema(
    {
        "face_id": pl.String,
        "n_votes": pl.Int64,
        "entropy": pl.Float64,
        "disagreement": pl.Float64,
        "error": pl.Float64,
        "more_votes": pl.Int64,
    }
)


def uncertainty(
    votes: pl.DataFrame,
    *,
    machine: pl.DataFrame | None = None,
    tolerance: float = 0.15,
    max_votes: int = 10,
) -> pl.DataFrame:
    """Estimate the uncertainty of each face, given how few votes it has.

    The entropy of a vote share is too low: three people who agree have entropy 0, and the fourth
    may disagree. The values here are expectations under the posterior of ``DirichletMixture``.

    - ``n_votes``: distinct raters.
    - ``entropy`` in bits, 0 to 3.32: expected entropy over all ten answers.
    - ``disagreement`` in [0, 1]: probability that the next two people answer differently.
    - ``error`` in [0, 1]: expected total variation between the label and how people see the face.
    - ``more_votes``: votes that bring ``error`` below ``tolerance``, 0 to ``max_votes``.

    Args:
        votes, machine: as for ``soft_labels``.
        tolerance: the default is the error of a panel of ten on FER+.
        max_votes: upper limit of ``more_votes``.

    Returns:
        One row per face, sorted by face_id.

    Raises:
        SettingsError: ``tolerance`` is not in (0, 1) or ``max_votes`` is negative.
        TableError: as for ``soft_labels``.
    """
    if not 0 < tolerance < 1 or max_votes < 0:
        raise SettingsError(
            "The tolerance or the maximum number of votes is out of range",
            got=f"tolerance={tolerance}, max_votes={max_votes}",
            hint="choose a tolerance between 0 and 1 and at least 0 votes",
        )
    table = tally(votes, machine=machine)
    parts = [
        _of_posterior(posterior, tolerance=tolerance, max_votes=max_votes)
        for _, posterior in DirichletMixture().posteriors(table.counts(), table.machine)
    ]
    values = pl.concat(parts) if parts else pl.DataFrame(schema=list(_SCHEMA)[2:])
    return values.select(
        pl.Series("face_id", table.face_ids, dtype=pl.String),
        pl.Series("n_votes", table.n_raters(), dtype=pl.Int64),
        pl.all(),
    ).cast(_SCHEMA)


def _of_posterior(posterior: Mixture, *, tolerance: float, max_votes: int) -> pl.DataFrame:
    mean, variance = posterior.mean(), posterior.variance()
    error = posterior.mean_absolute_deviation().sum(axis=1) / 2
    total = variance.sum(axis=1)
    # Strength of the Dirichlet with the same variance: m more votes shrink the variance to
    # strength / (strength + m) of it.
    strength = np.maximum((1 - (mean**2).sum(axis=1)) / np.maximum(total, 1e-12) - 1, 0)
    more = np.ceil(strength * ((error / tolerance) ** 2 - 1))
    return pl.DataFrame(
        {
            "entropy": posterior.entropy(),
            "disagreement": np.clip(1 - (mean**2 + variance).sum(axis=1), 0, 1),
            "error": np.clip(error, 0, 1),
            "more_votes": np.clip(more, 0, max_votes).astype(np.int64),
        }
    )
