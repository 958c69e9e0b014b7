"""Pseudo-labels of synthetic faces, decided by independent raters.

The rule follows FERAnno's use in SynFER (Qi et al., 2024). If the raters find the requested
expression likely enough, the label is the request softened by their answer. What is enough depends
on the expression: rare ones get little probability even from faces that people call so. If it is
not enough, the label is the raters' mean. If they are unsure, the face is dropped. Action units are
always the measured ones: a requested unit that is not seen makes the face relabelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from synthesis.coverage import PRESENT
from warehouse.errors import ModelError, SettingsError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

KEPT, RELABELLED, DROPPED = "kept", "relabelled", "dropped"
ACTIONS = (KEPT, RELABELLED, DROPPED)

TRUST = 0.7
"""Share of the requested label if the raters agree with it."""

UNSURE = 0.5
"""Probability of the first choice below which an ensemble is unsure, and of a requested expression
from which it is supported, unless thresholds are given."""


@dataclass(frozen=True)
class Reading:
    """Ratings of n faces by one rater.

    Attributes:
        rater_id: must not be that of the guidance rater.
        expression: float[n, 8], rows sum to 1: the label that the rater would give.
        au: float[n, K] in 0..1, NaN where it does not support the unit.
        plurality: float[n, 8], the probability that each expression is the first choice of most
            people, compared with ``UNSURE``; ``expression`` if not given. A rater trained on
            shares of votes is not confident in ``expression``.
        not_a_face: float[n]; zeros if not given.
    """

    rater_id: str
    expression: np.ndarray
    au: np.ndarray
    plurality: np.ndarray | None = None
    not_a_face: np.ndarray | None = None

    @property
    def sure(self) -> np.ndarray:
        """Return the probability of each expression as first choice."""
        return self.expression if self.plurality is None else self.plurality

    @property
    def no_face(self) -> np.ndarray:
        """Return the probability that each crop shows no face."""
        return np.zeros(len(self.expression)) if self.not_a_face is None else self.not_a_face


def check_independent(guide: str | None, raters: Iterable[str]) -> None:
    """Check that the guidance rater is not among the raters.

    A rater cannot evaluate faces that were optimised for it.

    Raises:
        SettingsError: it is among them.
    """
    if guide is not None and guide in set(raters):
        raise SettingsError(
            "The rater guided the faces it would evaluate",
            got=guide,
            hint="leave out the guide, or label with another rater",
        )


def rectify(
    asked_expression: np.ndarray,
    asked_au: np.ndarray,
    readings: Sequence[Reading],
    *,
    faceless: np.ndarray | None = None,
    thresholds: np.ndarray | None = None,
) -> pl.DataFrame:
    """Return ``measured_au, soft_label, action, reason`` of each face.

    A dropped face keeps its measurements and soft label, so that a threshold can be changed
    later. Reasons begin with ``unsure``, ``not_a_face``, ``expression`` or ``au``.

    Args:
        asked_expression: float[n, 8]; a row of NaN where none is requested.
        asked_au: float[n, K]; NaN where nothing is requested, 0 where absence is.
        readings: of one or more raters, on the same n faces.
        faceless: bool[n], where a face detector finds no face. Expression raters are trained on
            faces only and see expressions in noise.
        thresholds: float[8], the probability from which the raters support each requested
            expression; ``UNSURE`` for all if not given.

    Raises:
        ModelError: no readings, or one of another size or with NaN in a distribution.
    """
    _check(len(asked_au), readings)
    seen = np.mean([one.expression for one in readings], axis=0)
    sure = np.mean([one.sure for one in readings], axis=0)
    no_face = np.mean([one.no_face for one in readings], axis=0)
    au = mean_known([one.au for one in readings])
    bars = np.full(len(EXPRESSIONS), UNSURE) if thresholds is None else thresholds
    rows = [
        _row(*row, bars) for row in zip(asked_expression, asked_au, seen, sure, au, strict=True)
    ]
    lost = (no_face > 0.5) | (False if faceless is None else faceless)
    for place in np.flatnonzero(lost):
        source = "say the raters" if no_face[place] > 0.5 else "none is found"
        rows[place] = (rows[place][0], DROPPED, f"not_a_face: {source}")
    labels, actions, reasons = zip(*rows, strict=True) if rows else ((), (), ())
    columns = TABLES["synthetic_faces"].columns
    return pl.DataFrame(
        {
            "measured_au": au.astype(np.float32),
            "soft_label": np.array(labels, np.float32).reshape(-1, len(EXPRESSIONS)),
            "action": list(actions),
            "reason": list(reasons),
        },
        schema={name: columns[name] for name in ("measured_au", "soft_label", "action", "reason")},
    )


def mean_known(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Average arrays, ignoring NaN; NaN where all are NaN."""
    stacked = np.stack(parts).astype(np.float64)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def missed(asked: np.ndarray, measured: np.ndarray) -> list[str]:
    """Describe requested units that raters measure below half of ``PRESENT``.

    Args:
        asked, measured: float[K] of one face, NaN = not requested, not supported.
    """
    unseen = (asked >= PRESENT) & (measured < PRESENT / 2)
    return [
        f"{unit.code} asked {want:.2f}, seen {got:.2f}"
        for unit, want, got, miss in zip(ACTION_UNITS, asked, measured, unseen, strict=True)
        if miss
    ]


def _row(
    asked: np.ndarray,
    asked_au: np.ndarray,
    seen: np.ndarray,
    sure: np.ndarray,
    au: np.ndarray,
    bars: np.ndarray,
) -> tuple[np.ndarray, str, str | None]:
    """Return soft label, action and reason of one face."""
    first = int(sure.argmax())
    wanted = None if np.isnan(asked).any() else int(asked.argmax())
    supported = wanted is not None and sure[wanted] >= bars[wanted]
    agrees = wanted is None or supported
    label = TRUST * asked + (1 - TRUST) * seen if wanted is not None and agrees else seen
    label = label / label.sum()
    if not supported and sure[first] < UNSURE:
        return label, DROPPED, f"unsure: {EXPRESSIONS[first]} {sure[first]:.2f}"
    if not agrees and wanted is not None:
        text = f"expression: asked {EXPRESSIONS[wanted]}, seen {EXPRESSIONS[first]}"
        return label, RELABELLED, text
    unseen = missed(asked_au, au)
    if unseen:
        return label, RELABELLED, f"au: {'; '.join(unseen)}"
    return label, KEPT, None


def _check(n: int, readings: Sequence[Reading]) -> None:
    if not readings:
        raise ModelError(
            "There are no ratings", got="no rater", hint="give a rater that is not the guide"
        )
    for one in readings:
        for name, array in (("expression", one.expression), ("plurality", one.sure)):
            sums = array.sum(axis=1) if array.ndim == 2 else np.array([np.nan])
            if array.shape != (n, len(EXPRESSIONS)) or not (np.abs(sums - 1) < 1e-3).all():
                raise ModelError(
                    f"{one.rater_id} did not return {n} distributions as {name}",
                    got=f"shape {array.shape}, not all of sum 1",
                    hint="fix that rater",
                )
