"""Dirichlet mixture of votes, a machine rater and common vote patterns.

A component with alpha = (9, 0.1, …) means that nearly all people answer neutral; one with
(2, 0.1, 0.1, 1.5, …) that they waver between neutral and sadness. Votes on a face are then
Dirichlet-multinomial, and every quantity below has a closed form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from annotation.aggregation.base import Aggregator, closed_share
from annotation.aggregation.votes import FloatArray, VoteTable

DEFAULT_PRIOR = Path(__file__).parent / "dirichlet_mixture.json"

_BLOCK = 20_000
"""Faces per block; their mixtures take about 30 MB."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of J Dirichlets over K answers for each of n faces.

    Attributes:
        log_weight: float64[n, J], rows sum to 1 after exp.
        alpha: float64[n, J, K], above 0.
    """

    log_weight: FloatArray
    alpha: FloatArray

    @property
    def weight(self) -> FloatArray:
        weight: FloatArray = np.exp(self.log_weight)
        return weight

    def posterior(self, counts: FloatArray | npt.NDArray[np.int64]) -> tuple[Mixture, FloatArray]:
        """Condition on votes float64[n, K], which may be fractions.

        Returns:
            The posterior, and the log evidence float64[n] of one order of the votes (without the
            multinomial coefficient).
        """
        from scipy.special import gammaln, logsumexp

        after = self.alpha + counts[:, None]
        logs = (gammaln(after) - gammaln(self.alpha)).sum(axis=2)
        logs += gammaln(self.alpha.sum(axis=2)) - gammaln(after.sum(axis=2))
        logs = logs + self.log_weight
        total = logsumexp(logs, axis=1)
        return Mixture(logs - total[:, None], after), total

    def mean(self) -> FloatArray:
        """Probability of each answer by the next person: float64[n, K]."""
        shares = self.alpha / self.alpha.sum(axis=2, keepdims=True)
        mean: FloatArray = np.einsum("nj,njk->nk", self.weight, shares)
        return mean

    def variance(self) -> FloatArray:
        """Variance of the true shares: float64[n, K]."""
        total = self.alpha.sum(axis=2, keepdims=True)
        square = self.alpha * (self.alpha + 1) / (total * (total + 1))
        second_moment: FloatArray = np.einsum("nj,njk->nk", self.weight, square)
        return np.maximum(second_moment - self.mean() ** 2, 0)

    def mean_absolute_deviation(self) -> FloatArray:
        """Expected distance of the true shares from ``mean``: float64[n, K]."""
        from scipy.special import betainc

        mean = self.mean()
        deviation = np.zeros_like(mean)
        total = self.alpha.sum(axis=2)
        for answer in range(mean.shape[1]):
            alpha = self.alpha[:, :, answer]
            center = np.clip(mean[:, answer, None], 0, 1)
            below = betainc(alpha, total - alpha, center)
            # The mean of a beta variable below a point is that of a beta with one more vote.
            partial = alpha / total * betainc(alpha + 1, total - alpha, center)
            distance = center * (2 * below - 1) + alpha / total - 2 * partial
            deviation[:, answer] = (self.weight * distance).sum(axis=1)
        return np.maximum(deviation, 0)

    def entropy(self) -> FloatArray:
        """Expected entropy of the true shares in bits: float64[n]."""
        from scipy.special import digamma

        total = self.alpha.sum(axis=2)
        inner = (self.alpha / total[..., None] * digamma(self.alpha + 1)).sum(axis=2)
        entropy: FloatArray = (self.weight * (digamma(total + 1) - inner)).sum(axis=1) / np.log(2)
        return entropy

    def median_counts(self, n: int) -> FloatArray:
        """Median answer counts among the next ``n`` votes: float64[n_faces, K]."""
        from scipy.special import gammaln

        k = np.arange(n + 1)
        log_choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        total = self.alpha.sum(axis=2)
        median = np.zeros((len(total), self.alpha.shape[2]))
        for answer in range(self.alpha.shape[2]):
            yes = self.alpha[:, :, answer, None]
            no = total[..., None] - yes
            logs = gammaln(k + yes) + gammaln(n - k + no) - gammaln(n + yes + no)
            logs += log_choose - gammaln(yes) - gammaln(no) + gammaln(yes + no)
            probability = np.einsum("nj,njs->ns", self.weight, np.exp(logs))
            median[:, answer] = (probability.cumsum(axis=1) < 0.5 - 1e-9).sum(axis=1)
        return median


@dataclass(frozen=True)
class Prior:
    """Mixture for a face before any vote, fitted by ``fit_dirichlet_mixture``.

    A share ``patterns`` of the weight is on the common vote patterns, which need no machine rater;
    patterns that its prediction m makes unlikely get less. The rest is on two Dirichlets with
    ``trust[0] m + floor`` and ``trust[1] m + floor``: m may be a rough or a precise prediction of
    how people see the face. The entropy of m decides between them.

    Attributes:
        weight, alpha: float64[J] and float64[J, 10], the patterns.
        patterns: share in (0, 1) of the patterns beside a machine rater; 1 without one.
        sharpness: exponent of the machine's prediction in the pattern weights.
        trust: float64[2], in votes.
        floor: float64[10], in votes.
        gate: (a, b): log odds of the second Dirichlet are a + b * entropy of m in nats.
        version: identifies these numbers in the ``method`` column.
    """

    weight: FloatArray
    alpha: FloatArray
    patterns: float
    sharpness: float
    trust: FloatArray
    floor: FloatArray
    gate: tuple[float, float]
    version: str = "fitted"

    @classmethod
    def read(cls, path: Path = DEFAULT_PRIOR) -> Self:
        """Read a prior written by ``fit_dirichlet_mixture``."""
        values: dict[str, Any] = json.loads(path.read_text())
        weight = np.array(values["weight"])
        return cls(
            weight=weight / weight.sum(),
            alpha=np.array(values["alpha"]),
            patterns=float(values["patterns"]),
            sharpness=float(values["sharpness"]),
            trust=np.array(values["trust"]),
            floor=np.array(values["floor"]),
            gate=(float(values["gate"][0]), float(values["gate"][1])),
            version=values["version"],
        )

    def mixture(self, machine: FloatArray | None, n: int) -> Mixture:
        """Build the prior mixture of each of ``n`` faces.

        Args:
            machine: float64[n, 10], NaN rows for faces without a machine rating; or ``None``.
        """
        width = self.alpha.shape[1]
        if machine is None:
            machine = np.full((n, width), np.nan)
        known = np.asarray(~np.isnan(machine).any(axis=1))
        predicted = np.where(known[:, None], machine, 1 / width)
        return Mixture(
            np.hstack(
                [self._pattern_weights(predicted, known), self._machine_weights(predicted, known)]
            ),
            np.concatenate(
                [
                    np.broadcast_to(self.alpha, (n, *self.alpha.shape)),
                    predicted[:, None] * self.trust[:, None] + self.floor,
                ],
                axis=1,
            ),
        )

    def _pattern_weights(self, predicted: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
        from scipy.special import logsumexp

        shares = self.alpha / self.alpha.sum(axis=1, keepdims=True)
        fit = self.sharpness * (predicted @ np.log(shares.T + 1e-3))
        logs = np.log(self.weight) + np.where(known[:, None], fit, 0.0)
        logs -= logsumexp(logs, axis=1, keepdims=True)
        weights: FloatArray = logs + np.where(known, np.log(self.patterns), 0.0)[:, None]
        return weights

    def _machine_weights(self, predicted: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
        entropy = -(predicted * np.log(np.maximum(predicted, 1e-12))).sum(axis=1)
        log_odds = self.gate[0] + self.gate[1] * entropy
        sides = -np.logaddexp(0, np.stack([log_odds, -log_odds], axis=1))
        return np.where(known[:, None], sides + np.log1p(-self.patterns), -np.inf)


@lru_cache(maxsize=1)
def default_prior() -> Prior:
    """The prior fitted on FER+ train; see ``fitted_on`` in its file."""
    return Prior.read()


def refit_weights(
    weight: FloatArray, alpha: FloatArray, counts: FloatArray, prior_faces: float
) -> FloatArray:
    """Re-estimate the component weights on other data in ten EM iterations.

    Args:
        prior_faces: number of faces that the given weights count as.
    """
    fitted = weight
    vectors, times = np.unique(counts, axis=0, return_counts=True)
    for _ in range(10 if len(vectors) else 0):
        posterior, _evidence = Mixture(np.log(fitted)[None], alpha[None]).posterior(vectors)
        credit = (posterior.weight * times[:, None]).sum(axis=0)
        fitted = (credit + prior_faces * weight) / (credit.sum() + prior_faces)
    return fitted


class DirichletMixture(Aggregator):
    """Posterior of a mixture of Dirichlets. Best with few votes per face.

    Votes shift the weight between "people waver", "all agree" and "the machine is right". The label
    is the expected answer of the next person. Without a machine rater only the vote patterns count.

    The prior is fitted on faces with ten votes each. The weights of its patterns are re-estimated
    on the votes at hand.

    Args:
        panel: if set, the label is the panel of that many people closest to all likely ones: the
            votes so far plus median counts of the missing votes. It has a lower absolute error than
            the default and a worse likelihood, because rare answers get 0.
        prior: the fitted prior; ``default_prior`` if ``None``.
        prior_faces: number of faces that the prior's pattern weights count as.

    Attributes:
        answers_: float64[n_faces, 10] over ``ANSWERS``.
    """

    answers_: FloatArray

    def __init__(
        self, panel: int | None = None, prior: Prior | None = None, prior_faces: float = 500.0
    ) -> None:
        self.panel, self.prior_faces, self._prior = panel, prior_faces, prior or default_prior()

    @property
    def prior_version(self) -> str:
        """Version of the fitted prior."""
        return self._prior.version

    @property
    def method(self) -> str:
        name = "dirichlet_mixture(" if self.panel is None else f"panel(of={self.panel}, "
        return f"{name}prior_faces={self.prior_faces:g}, prior={self._prior.version})"

    def fit(self, votes: VoteTable) -> Self:
        counts = votes.counts()
        self.answers_ = np.zeros_like(counts)
        for rows, posterior in self.posteriors(counts, votes.machine):
            self.answers_[rows] = self.predict_answers(posterior, counts[rows])
        self.probabilities_ = closed_share(self.answers_, votes)
        return self

    def posteriors(
        self,
        counts: FloatArray,
        machine: FloatArray | None,
        *,
        unweighted: FloatArray | None = None,
    ) -> Iterator[tuple[slice, Mixture]]:
        """Yield blocks of faces with their posterior after votes float64[n, 10].

        Args:
            unweighted: the same votes without weights of raters, from which the pattern weights
                are re-estimated. There are few distinct ones, so that this takes no time.
        """
        votes = counts if unweighted is None else unweighted
        weight = refit_weights(self._prior.weight, self._prior.alpha, votes, self.prior_faces)
        prior = replace(self._prior, weight=weight)
        for start in range(0, len(counts), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(counts)))
            before = prior.mixture(None if machine is None else machine[rows], rows.stop - start)
            yield rows, before.posterior(counts[rows])[0]

    def predict_answers(self, posterior: Mixture, counts: FloatArray) -> FloatArray:
        """Predict the label float64[n, 10] of faces with votes float64[n, 10]."""
        if self.panel is None:
            return posterior.mean()
        full = np.array(counts)
        missing = np.maximum(np.rint(self.panel - counts.sum(axis=1)), 0).astype(int)
        for n in np.unique(missing[missing > 0]).tolist():
            rows = missing == n
            part = Mixture(posterior.log_weight[rows], posterior.alpha[rows])
            full[rows] += part.median_counts(n)
        answers: FloatArray = full / full.sum(axis=1, keepdims=True)
        return answers
