"""Labels of made faces: what was asked is a wish, what independent raters see decides.

The rule follows FERAnno's use in SynFER (Qi et al., 2024): where the raters' first choice is the
asked expression, the asked label stays, softened by what they see; where it is not, their mean
takes its place; where they are unsure, the face is dropped. Action units are always the measured
ones: a unit that was asked and cannot be seen makes no wrong label, only a face that counts as
relabelled.
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
"""Share of the asked label where the raters agree with it."""

UNSURE = 0.5
"""Below this probability of its first choice an ensemble does not know what it sees."""


@dataclass(frozen=True)
class Reading:
    """What one rater reads from n faces.

    Attributes:
        rater_id: never that of the rater that guided the drawing.
        expression: float[n, 8], rows sum to 1: the label that the rater would give.
        au: float[n, K] in 0..1, NaN where it does not know the unit.
        plurality: float[n, 8]: how likely each expression is the first choice of most people. A
            rater that imitates shares of votes is modest, and ``UNSURE`` asks about this number;
            ``expression`` if not given.
        not_a_face: float[n]; zeros if not given.
    """

    rater_id: str
    expression: np.ndarray
    au: np.ndarray
    plurality: np.ndarray | None = None
    not_a_face: np.ndarray | None = None

    @property
    def sure(self) -> np.ndarray:
        return self.expression if self.plurality is None else self.plurality

    @property
    def no_face(self) -> np.ndarray:
        return np.zeros(len(self.expression)) if self.not_a_face is None else self.not_a_face


def apart(guide: str | None, raters: Iterable[str]) -> None:
    """Refuse a guide that is among the raters: a face drawn to please one says nothing to it.

    Raises:
        SettingsError: it is.
    """
    if guide is not None and guide in set(raters):
        raise SettingsError(
            "raters that did not guide the drawing",
            got=f"{guide} as both",
            hint="leave out the guide, or label with another rater",
        )


def rectify(
    asked_expression: np.ndarray,
    asked_au: np.ndarray,
    readings: Sequence[Reading],
    *,
    faceless: np.ndarray | None = None,
) -> pl.DataFrame:
    """One row per face: ``measured_au``, ``soft_label``, ``action`` and ``reason``.

    A dropped face keeps what was measured, and its soft label, so that a threshold can be moved
    later; reasons begin with ``unsure``, ``not_a_face``, ``expression`` or ``au``.

    Args:
        asked_expression: float[n, 8]; a row of NaN where none was asked.
        asked_au: float[n, K]; NaN where nothing was asked, 0 where absence was.
        readings: of one or more raters, on the same n faces.
        faceless: bool[n], where a face finder finds none. Raters of expressions have seen little
            but faces, and read one into noise.

    Raises:
        ModelError: no reading at all, or one of another size or with NaN in a distribution.
    """
    _check(len(asked_au), readings)
    seen = np.mean([one.expression for one in readings], axis=0)
    sure = np.mean([one.sure for one in readings], axis=0)
    no_face = np.mean([one.no_face for one in readings], axis=0)
    au = mean_known([one.au for one in readings])
    rows = [_row(*row) for row in zip(asked_expression, asked_au, seen, sure, au, strict=True)]
    lost = (no_face > 0.5) | (False if faceless is None else faceless)
    for place in np.flatnonzero(lost):
        told = "say the raters" if no_face[place] > 0.5 else "none is found"
        rows[place] = (rows[place][0], DROPPED, f"not_a_face: {told}")
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
    """The mean of arrays over those that know each value; NaN where none does."""
    stacked = np.stack(parts).astype(np.float64)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def missed(asked: np.ndarray, measured: np.ndarray) -> list[str]:
    """Units asked for, known to the raters and not even seen at half of ``PRESENT``; one text each.

    Args:
        asked, measured: float[K] of one face, NaN = not asked, not known.
    """
    gone = (asked >= PRESENT) & (measured < PRESENT / 2)
    return [
        f"{unit.code} asked {want:.2f}, seen {got:.2f}"
        for unit, want, got, miss in zip(ACTION_UNITS, asked, measured, gone, strict=True)
        if miss
    ]


def _row(
    asked: np.ndarray, asked_au: np.ndarray, seen: np.ndarray, sure: np.ndarray, au: np.ndarray
) -> tuple[np.ndarray, str, str | None]:
    """Soft label, action and reason of one face."""
    first = int(sure.argmax())
    wanted = None if np.isnan(asked).any() else int(asked.argmax())
    agrees = wanted is None or wanted == first
    label = TRUST * asked + (1 - TRUST) * seen if wanted is not None and agrees else seen
    label = label / label.sum()
    if sure[first] < UNSURE:
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
        raise ModelError("at least one rater", got="none", hint="give one that did not guide")
    for one in readings:
        for name, array in (("expression", one.expression), ("plurality", one.sure)):
            sums = array.sum(axis=1) if array.ndim == 2 else np.array([np.nan])
            if array.shape != (n, len(EXPRESSIONS)) or not (np.abs(sums - 1) < 1e-3).all():
                raise ModelError(
                    f"{n} distributions as {name} of {one.rater_id}",
                    got=f"shape {array.shape}, not all of sum 1",
                    hint="mend that rater",
                )
