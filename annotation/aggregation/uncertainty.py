"""How sure a label is, given how few people were asked, and how many more to ask."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregation.dirichlet_mixture import Pooled
from annotation.aggregation.patterns import Mixture
from annotation.aggregation.votes import tally, with_machine
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
    most: int = 10,
) -> pl.DataFrame:
    """What is known of each voted face, corrected for the number of votes; sorted by face_id.

    The entropy of a vote share is too low: three people who agree have entropy 0, and the fourth
    may not agree. Here every number is an expectation over all distributions that the votes, the
    machine and the common vote patterns (``Pooled``) leave possible.

    - ``n_votes``: distinct raters.
    - ``entropy`` in bits, 0 to 3.32: expected entropy of how people see the face, over all ten
      answers.
    - ``disagreement`` in [0, 1]: chance that the next two people answer differently.
    - ``error`` in [0, 1]: expected total variation between the label and how people really see
      the face; what the label lacks for want of votes.
    - ``more_votes``: how many votes bring ``error`` under ``tolerance``, 0 to ``most``. The queue
      may ask for so many.

    Args:
        votes: as for ``soft_labels``.
        machine: as for ``soft_labels``.
        tolerance: 0.15 is what a panel of ten still misses on FER+ (measured).
        most: nobody is asked for more than this.

    Raises:
        SettingsError: ``tolerance`` not in (0, 1) or ``most`` below 0.
        TableError: as for ``soft_labels``.
    """
    if not 0 < tolerance < 1 or most < 0:
        raise SettingsError(
            "a tolerance within 0 and 1 and at least 0 votes at most",
            got=f"tolerance={tolerance}, most={most}",
            hint="raise or lower them",
        )
    table = with_machine(tally(votes), machine)
    parts = [
        _of(posterior, tolerance=tolerance, most=most)
        for _, posterior in Pooled().posteriors(table.counts(), table.machine)
    ]
    found = pl.concat(parts) if parts else pl.DataFrame(schema=list(_SCHEMA)[2:])
    return found.select(
        pl.Series("face_id", table.face_ids, dtype=pl.String),
        pl.Series("n_votes", table.n_raters(), dtype=pl.Int64),
        pl.all(),
    ).cast(_SCHEMA)


def _of(posterior: Mixture, *, tolerance: float, most: int) -> pl.DataFrame:
    mean, variance = posterior.mean(), posterior.variance()
    error = posterior.deviation().sum(axis=1) / 2
    spread = variance.sum(axis=1)
    # The Dirichlet of the same spread: after m more votes it shrinks by votes / (votes + m).
    worth = np.maximum((1 - (mean**2).sum(axis=1)) / np.maximum(spread, 1e-12) - 1, 0)
    wanted = np.ceil(worth * ((error / tolerance) ** 2 - 1))
    return pl.DataFrame(
        {
            "entropy": posterior.entropy(),
            "disagreement": np.clip(1 - (mean**2 + variance).sum(axis=1), 0, 1),
            "error": np.clip(error, 0, 1),
            "more_votes": np.clip(wanted, 0, most).astype(np.int64),
        }
    )
