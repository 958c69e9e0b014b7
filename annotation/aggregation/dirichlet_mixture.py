"""Pooled: the votes, the machine rater, and what vote patterns are common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from annotation.aggregation.em import closed_share
from annotation.aggregation.patterns import Mixture, adapted
from annotation.aggregation.votes import VoteTable

FITTED = Path(__file__).parent / "pooled.json"

_BLOCK = 20_000
"""Faces at once: their mixtures take about 30 MB."""


@dataclass(frozen=True)
class Prior:
    """What is believed of a face before anybody voted, as fitted by ``aggregate.fit``.

    A share ``patterns`` of the belief goes to the common vote patterns, which need no machine;
    those that the machine's reading makes unlikely weigh less. The rest goes to two Dirichlets
    around the machine's reading m, with ``trust[0] m + floor`` and ``trust[1] m + floor``: it may
    be roughly or precisely how people see the face. The machine's own entropy says which.

    Attributes:
        weight, alpha: float64[J] and float64[J, 10], the patterns.
        patterns: share in (0, 1) of the patterns beside a machine; 1 without one.
        sharpness: exponent of the machine's say over the patterns.
        trust: float64[2], in votes.
        floor: float64[10], in votes.
        gate: (a, b): log odds of the second Dirichlet are a + b * entropy of m in nats.
        version: what the ``method`` column calls these numbers.
    """

    weight: np.ndarray
    alpha: np.ndarray
    patterns: float
    sharpness: float
    trust: np.ndarray
    floor: np.ndarray
    gate: tuple[float, float]
    version: str = "fitted"

    @classmethod
    def read(cls, path: Path = FITTED) -> Prior:
        """The numbers in a file that ``aggregate.fit`` wrote."""
        said: dict[str, Any] = json.loads(path.read_text())
        weight = np.array(said["weight"])
        return cls(
            weight=weight / weight.sum(),
            alpha=np.array(said["alpha"]),
            patterns=float(said["patterns"]),
            sharpness=float(said["sharpness"]),
            trust=np.array(said["trust"]),
            floor=np.array(said["floor"]),
            gate=(float(said["gate"][0]), float(said["gate"][1])),
            version=said["version"],
        )

    def of(self, machine: np.ndarray | None, n: int) -> Mixture:
        """The mixture for each of ``n`` faces.

        Args:
            machine: float64[n, 10], NaN rows for faces that no machine rated; or ``None``.
        """
        width = self.alpha.shape[1]
        if machine is None:
            machine = np.full((n, width), np.nan)
        known = ~np.isnan(machine).any(axis=1)
        reading = np.where(known[:, None], machine, 1 / width)
        return Mixture(
            np.hstack([self._patterns(reading, known), self._around(reading, known)]),
            np.concatenate(
                [
                    np.broadcast_to(self.alpha, (n, *self.alpha.shape)),
                    reading[:, None] * self.trust[:, None] + self.floor,
                ],
                axis=1,
            ),
        )

    def _patterns(self, reading: np.ndarray, known: np.ndarray) -> np.ndarray:
        from scipy.special import logsumexp

        shares = self.alpha / self.alpha.sum(axis=1, keepdims=True)
        fits = self.sharpness * (reading @ np.log(shares.T + 1e-3))
        logs = np.log(self.weight) + np.where(known[:, None], fits, 0.0)
        logs -= logsumexp(logs, axis=1, keepdims=True)
        return logs + np.where(known, np.log(self.patterns), 0.0)[:, None]

    def _around(self, reading: np.ndarray, known: np.ndarray) -> np.ndarray:
        unsure = -(reading * np.log(np.maximum(reading, 1e-12))).sum(axis=1)
        odds = self.gate[0] + self.gate[1] * unsure
        sides = -np.logaddexp(0, np.stack([odds, -odds], axis=1))
        return np.where(known[:, None], sides + np.log1p(-self.patterns), -np.inf)


@lru_cache(maxsize=1)
def shipped() -> Prior:
    """The prior fitted on FER+ train; see ``fitted_on`` in its file."""
    return Prior.read()


class Pooled:
    """Posterior of a mixture of Dirichlets: with three votes, what else is known helps most.

    Each vote moves the belief between "people waver here", "everybody agrees" and "the machine
    has it right", and the label is what the next person is expected to answer. Without a machine
    rater the vote patterns alone speak.

    It was fitted on faces with ten votes each; on data where other patterns are common their
    weights are learned anew from the votes at hand, with the shipped ones counting as
    ``worth`` faces.

    Args:
        panel: with a number, the label is instead the panel of that many people that is nearest
            to all that are likely: median counts of the votes still missing, plus those that are
            there. It is nearer to a full panel in absolute error and worse in likelihood,
            because it says 0 to the rare.
        prior: the fitted numbers; those that ship by default.
        worth: see above.

    Attributes:
        answers_: float64[n_faces, 10] over ``ANSWERS``.
        probabilities_: float64[n_faces, 8], its closed part, rows sum to 1; NaN rows for faces
            without a closed vote.
    """

    answers_: np.ndarray
    probabilities_: np.ndarray

    def __init__(
        self, panel: int | None = None, prior: Prior | None = None, worth: float = 500.0
    ) -> None:
        self.panel, self.worth, self._prior = panel, worth, prior or shipped()

    @property
    def method(self) -> str:
        """What the ``method`` column says: the name and every setting that shaped the row."""
        says = "next" if self.panel is None else f"panel of {self.panel}"
        return f"pooled(says={says}, worth={self.worth:g}, prior={self._prior.version})"

    def fit(self, votes: VoteTable) -> Pooled:
        counts = votes.counts()
        self.answers_ = np.zeros_like(counts)
        for rows, posterior in self.posteriors(counts, votes.machine):
            self.answers_[rows] = self.said(posterior, counts[rows])
        self.probabilities_ = closed_share(self.answers_, votes)
        return self

    def posteriors(
        self, counts: np.ndarray, machine: np.ndarray | None
    ) -> Iterator[tuple[slice, Mixture]]:
        """Blocks of faces with what is believed of them after their votes float64[n, 10]."""
        prior = self._prior
        weight = adapted(prior.weight, prior.alpha, counts, self.worth)
        fresh = replace(prior, weight=weight)
        for start in range(0, len(counts), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(counts)))
            before = fresh.of(None if machine is None else machine[rows], rows.stop - start)
            yield rows, before.given(counts[rows])[0]

    def said(self, posterior: Mixture, counts: np.ndarray) -> np.ndarray:
        """The label float64[n, 10] of faces with these votes float64[n, 10]."""
        if self.panel is None:
            return posterior.mean()
        full = np.array(counts)
        heard = counts.sum(axis=1)
        missing = np.maximum(np.rint(self.panel - heard), 0).astype(int)
        for n in np.unique(missing[missing > 0]).tolist():
            rows = missing == n
            some = Mixture(posterior.log_weight[rows], posterior.alpha[rows])
            full[rows] += some.median_of(n)
        return full / full.sum(axis=1, keepdims=True)

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``."""
        return self.fit(votes).probabilities_
