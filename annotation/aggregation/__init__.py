"""Votes in, soft labels out: one file per method, all behind ``soft_labels``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import polars as pl

from annotation.aggregation.all_inclusive import AllInclusive
from annotation.aggregation.crowdlab import Crowdlab
from annotation.aggregation.dawid_skene import DawidSkene
from annotation.aggregation.dirichlet_mixture import Pooled
from annotation.aggregation.one_coin import OneCoin
from annotation.aggregation.overlap import agreement_of_faces
from annotation.aggregation.rater_quality import rater_quality, weighted
from annotation.aggregation.smoothed import Smoothed
from annotation.aggregation.uncertainty import uncertainty
from annotation.aggregation.vote_share import VoteShare
from annotation.aggregation.votes import VoteTable, tally, with_machine
from warehouse.errors import SettingsError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

__all__ = ["METHODS", "Method", "rater_quality", "soft_labels", "uncertainty", "weighted"]


class Method(Protocol):
    """One way from votes to distributions."""

    @property
    def method(self) -> str: ...

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``; NaN rows: no closed vote."""
        ...


METHODS: dict[str, Callable[[], Method]] = {
    "vote_share": VoteShare,
    "smoothed": Smoothed,
    "all_inclusive": AllInclusive,
    "pooled": Pooled,
    "pooled_panel": partial(Pooled, panel=10),
    "crowdlab": Crowdlab,
    "one_coin": OneCoin,
    "dawid_skene": DawidSkene,
}
"""How votes become labels.

``vote_share``, ``all_inclusive``, ``smoothed`` and ``pooled`` say how people see a face;
``pooled`` is the nearest to further votes when there are few, ``pooled_panel`` the nearest to a
panel of ten. ``crowdlab``, ``one_coin`` and ``dawid_skene`` say which expression is the true one:
they sharpen, and are for skills and consensus, not for soft labels.
"""


def soft_labels(
    votes: pl.DataFrame,
    method: str = "vote_share",
    *,
    machine: pl.DataFrame | None = None,
    start: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row per voted face, sorted by face_id, in the schema of ``soft_labels``.

    - ``expression``: the distribution over the eight expressions; null when all votes are for
      ``unknown`` or ``not_a_face``. Ties stay ties.
    - ``open_set_share`` in [0, 1]: share of the votes for ``unknown`` or ``not_a_face``.
    - ``n_votes``: distinct raters.
    - ``entropy`` in bits, 0 to 3, of ``expression``; null with it.
    - ``agreement`` in [0, 1]: share of pairs of raters that agree, over all ten answers (a pair
      of several answers agrees by their common part); null with fewer than two raters.
    - ``valence``, ``arousal``: means over raters; null where nobody said. ``au``: null.
    - ``method``: the method with its settings.

    Args:
        votes: ``face_id, rater_id, label`` and optionally ``weight, valence, arousal``: see
            ``votes.tally`` for several answers by one rater and for repeated rows.
        method: a name in ``METHODS``.
        machine: rows of ``ratings`` for the methods that listen to a machine (``pooled``,
            ``pooled_panel``, ``crowdlab``); the others ignore it. Its raters must not have
            learned from these votes.
        start: yesterday's soft labels, where EM begins (``one_coin``, ``dawid_skene``).

    Raises:
        SettingsError: no such method, or ``crowdlab`` without what it needs.
        TableError: columns are missing, a label is unknown, a weight is not one.
    """
    if method not in METHODS:
        raise SettingsError(
            f"an aggregation method out of {', '.join(METHODS)}",
            got=repr(method),
            hint="set RISORIUS_AGGREGATION, or pass method=, to one of them",
        )
    table, chosen = with_machine(tally(votes), machine, start=start), METHODS[method]()
    expression = chosen.fit_predict_proba(table)
    counts = table.counts()
    total = counts.sum(axis=1)
    frame = pl.DataFrame(
        {
            "face_id": pl.Series(table.face_ids, dtype=pl.String),
            "expression": _vectors(expression),
            "open_set_share": 1 - counts[:, : len(EXPRESSIONS)].sum(axis=1) / total,
            "n_votes": table.n_raters(),
            "entropy": pl.Series(_bits(expression)).fill_nan(None),
            "agreement": agreement_of_faces(table),
            "valence": table.moods["valence"],
            "arousal": table.moods["arousal"],
        }
    )
    columns = TABLES["soft_labels"].schema
    frame = frame.with_columns(au=pl.lit(None, columns["au"]), method=pl.lit(chosen.method))
    return frame.select(pl.col(name).cast(kind) for name, kind in columns.items())


def _vectors(expression: np.ndarray) -> pl.Series:
    kind = TABLES["soft_labels"].schema["expression"]
    known = pl.Series(~np.isnan(expression[:, 0]))
    frame = pl.DataFrame(
        {"row": pl.Series(expression.astype(np.float32)).cast(kind), "known": known}
    )
    return frame.select(pl.when("known").then("row"))["row"]


def _bits(expression: np.ndarray) -> np.ndarray:
    logs = np.log2(expression, out=np.zeros_like(expression), where=expression > 0)
    # NaN rows stay NaN; adding 0 turns the -0.0 of certainty into 0.0.
    return -(expression * logs).sum(axis=1) + 0.0
