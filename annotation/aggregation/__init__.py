"""Aggregate votes into soft labels. One file per method."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl

from annotation.aggregation.agreement import face_agreement
from annotation.aggregation.base import Aggregator, entropy_bits
from annotation.aggregation.crowdlab import Crowdlab
from annotation.aggregation.dawid_skene import DawidSkene, OneCoinDawidSkene
from annotation.aggregation.dirichlet_mixture import DirichletMixture
from annotation.aggregation.posterior import Posterior
from annotation.aggregation.rater_quality import rater_quality, weighted
from annotation.aggregation.uncertainty import uncertainty
from annotation.aggregation.vote_share import SmoothedVoteShare, VoteShare
from annotation.aggregation.votes import FloatArray, tally
from warehouse.errors import SettingsError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

__all__ = [
    "EARLIER_NAMES",
    "METHODS",
    "Aggregator",
    "rater_quality",
    "soft_labels",
    "uncertainty",
    "weighted",
]

METHODS: dict[str, Callable[[], Aggregator]] = {
    "posterior": Posterior,
    "vote_share": VoteShare,
    "smoothed": SmoothedVoteShare,
    "all_inclusive": partial(VoteShare, all_inclusive=True),
    "dirichlet_mixture": DirichletMixture,
    "panel": partial(DirichletMixture, panel=10),
    "crowdlab": Crowdlab,
    "one_coin": OneCoinDawidSkene,
    "dawid_skene": DawidSkene,
}
"""Aggregation methods by name.

``posterior`` is the default of releases: where a machine rated the face, ``dirichlet_mixture`` with
votes weighed by rater; elsewhere ``smoothed``. These three, ``vote_share`` and ``all_inclusive``
estimate how people see a face. With few votes, the first two predict further votes best, and
``panel`` is closest to a panel of ten. ``crowdlab``, ``one_coin`` and ``dawid_skene`` estimate the
one true expression. Their output is sharper than a soft label; use them for rater skills and
consensus.
"""

EARLIER_NAMES = {"pooled": "dirichlet_mixture", "pooled_panel": "panel"}
"""Names of methods in earlier versions, which settings may still hold."""


def soft_labels(
    votes: pl.DataFrame | pl.LazyFrame,
    method: str = "vote_share",
    *,
    machine: pl.DataFrame | None = None,
    start: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Aggregate votes into one soft label per face, sorted by face_id.

    The result has the schema of the table ``soft_labels``:

    - ``expression``: distribution over the eight expressions. Null if all votes are for
      ``unknown`` or ``not_a_face``. Ties stay ties.
    - ``open_set_share`` in [0, 1]: share of the votes for ``unknown`` or ``not_a_face``.
    - ``n_votes``: distinct raters.
    - ``entropy`` of ``expression`` in bits, 0 to 3. Null if ``expression`` is.
    - ``agreement`` in [0, 1]: share of rater pairs that agree, over all ten answers. Raters with
      several answers agree by their common part. Null with fewer than two raters.
    - ``valence``, ``arousal``: means over raters, null without a value. ``au``: null.
    - ``method``: the method with its settings.
    - ``item_kind, item_id, label_set, distribution``: the same, as for any other item.

    Args:
        votes: ``face_id, rater_id, label`` and optionally ``weight, valence, arousal``. See
            ``votes.tally`` for several answers by one rater and for repeated rows. A table of
            pandas or Arrow is converted, integer ids become text.
        method: a name in ``METHODS`` or ``EARLIER_NAMES``.
        machine: rows of the table ``ratings``, used by ``posterior``, ``dirichlet_mixture``,
            ``panel`` and ``crowdlab``. The machine raters must not be trained on these votes.
        start: earlier soft labels from which EM starts (``one_coin``, ``dawid_skene``).

    Raises:
        SettingsError: the method is unknown, or ``crowdlab`` lacks ratings or shared faces.
        TableError: a column is missing, a label is unknown or a weight is invalid.
    """
    method = EARLIER_NAMES.get(method, method)
    if method not in METHODS:
        raise SettingsError(
            "Unknown aggregation method",
            got=repr(method),
            hint=f"set RISORIUS_AGGREGATION or method= to one of {', '.join(METHODS)}",
        )
    table, aggregator = tally(votes, machine=machine, start=start), METHODS[method]()
    expression = aggregator.fit_predict_proba(table)
    counts = table.counts()
    total = counts.sum(axis=1)
    frame = pl.DataFrame(
        {
            "face_id": pl.Series(table.face_ids, dtype=pl.String),
            "expression": _to_arrays(expression),
            "open_set_share": 1 - counts[:, : len(EXPRESSIONS)].sum(axis=1) / total,
            "n_votes": table.n_raters(),
            "entropy": pl.Series(entropy_bits(expression)).fill_nan(None),
            "agreement": face_agreement(table),
            "valence": table.affect["valence"],
            "arousal": table.affect["arousal"],
        }
    )
    columns = TABLES["soft_labels"].schema
    frame = frame.with_columns(
        au=pl.lit(None, columns["au"]),
        method=pl.lit(aggregator.method),
        item_kind=pl.lit("face"),
        item_id="face_id",
        label_set=pl.lit("expressions8"),
        distribution=pl.col("expression").arr.to_list(),
    )
    return frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())


def _to_arrays(expression: FloatArray) -> pl.Series:
    """Rows as a Polars array column, null for NaN rows."""
    dtype = TABLES["soft_labels"].schema["expression"]
    known = pl.Series(~np.isnan(expression[:, 0]))
    rows = pl.Series(expression.astype(np.float32)).cast(dtype)
    return pl.DataFrame({"row": rows, "known": known}).select(pl.when("known").then("row"))["row"]
