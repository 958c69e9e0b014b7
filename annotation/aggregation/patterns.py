"""Mixtures of Dirichlet distributions: which ways of being seen are common, and which fit a face.

A component with alpha = (9, 0.1, …) says "nearly everybody calls it neutral", one with
(2, 0.1, 0.1, 1.5, …) "people waver between neutral and sadness". With one answer per vote and no
other knowledge, the votes on a face are Dirichlet-multinomial, and all that is asked of a face
has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FLOOR, _CEILING = 1e-3, 500.0


@dataclass(frozen=True)
class Mixture:
    """For each of n faces a mixture of J Dirichlet distributions over K answers.

    Attributes:
        log_weight: float64[n, J], rows sum to 1 after exp.
        alpha: float64[n, J, K], above 0.
    """

    log_weight: np.ndarray
    alpha: np.ndarray

    def given(self, counts: np.ndarray) -> tuple[Mixture, np.ndarray]:
        """The posterior after votes float64[n, K], and the log evidence float64[n] of the votes.

        Counts may be fractions. The evidence is that of one order of the votes: without the
        multinomial coefficient.
        """
        from scipy.special import gammaln, logsumexp

        after = self.alpha + counts[:, None]
        logs = (gammaln(after) - gammaln(self.alpha)).sum(axis=2)
        logs += gammaln(self.alpha.sum(axis=2)) - gammaln(after.sum(axis=2))
        logs = logs + self.log_weight
        total = logsumexp(logs, axis=1)
        return Mixture(logs - total[:, None], after), total

    @property
    def weight(self) -> np.ndarray:
        return np.exp(self.log_weight)

    def mean(self) -> np.ndarray:
        """float64[n, K]: how likely the next person is to give each answer."""
        shares = self.alpha / self.alpha.sum(axis=2, keepdims=True)
        return np.einsum("nj,njk->nk", self.weight, shares)

    def variance(self) -> np.ndarray:
        """float64[n, K]: how far each true share may lie from ``mean``, squared."""
        total = self.alpha.sum(axis=2, keepdims=True)
        square = self.alpha * (self.alpha + 1) / (total * (total + 1))
        return np.maximum(np.einsum("nj,njk->nk", self.weight, square) - self.mean() ** 2, 0)

    def deviation(self) -> np.ndarray:
        """float64[n, K]: how far each true share is expected to lie from ``mean``."""
        from scipy.special import betainc

        mean = self.mean()
        found = np.zeros_like(mean)
        total = self.alpha.sum(axis=2)
        for answer in range(mean.shape[1]):
            yes = self.alpha[:, :, answer]
            middle = np.clip(mean[:, answer, None], 0, 1)
            below = betainc(yes, total - yes, middle)
            # The mean of a beta variable below a point is that of a beta with one vote more.
            half = yes / total * betainc(yes + 1, total - yes, middle)
            apart = middle * (2 * below - 1) + yes / total - 2 * half
            found[:, answer] = (self.weight * apart).sum(axis=1)
        return np.maximum(found, 0)

    def entropy(self) -> np.ndarray:
        """float64[n], bits: the expected entropy of the true shares, not that of their mean."""
        from scipy.special import digamma

        total = self.alpha.sum(axis=2)
        inner = (self.alpha / total[..., None] * digamma(self.alpha + 1)).sum(axis=2)
        return (self.weight * (digamma(total + 1) - inner)).sum(axis=1) / np.log(2)

    def median_of(self, n: int) -> np.ndarray:
        """float64[n_faces, K]: the median number of each answer among the next ``n`` votes."""
        from scipy.special import gammaln

        seen = np.arange(n + 1)
        ways = gammaln(n + 1) - gammaln(seen + 1) - gammaln(n - seen + 1)
        total = self.alpha.sum(axis=2)
        found = np.zeros((len(total), self.alpha.shape[2]))
        for answer in range(self.alpha.shape[2]):
            yes = self.alpha[:, :, answer, None]
            no = total[..., None] - yes
            logs = gammaln(seen + yes) + gammaln(n - seen + no) - gammaln(n + yes + no)
            logs += ways - gammaln(yes) - gammaln(no) + gammaln(yes + no)
            chance = np.einsum("nj,njs->ns", self.weight, np.exp(logs))
            found[:, answer] = (chance.cumsum(axis=1) < 0.5 - 1e-9).sum(axis=1)
        return found


def fit(
    counts: np.ndarray, times: np.ndarray, *, components: int, passes: int = 150, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The mixture under which these vote vectors are likeliest, by EM.

    The M step is Minka's fixed point for the Dirichlet-multinomial (Minka, 2000, Estimating a
    Dirichlet distribution).

    Args:
        counts: float64[n, K], distinct vote vectors; ``times`` how often each was seen.

    Returns:
        weight float64[J] and alpha float64[J, K].
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(counts), components, replace=False, p=times / times.sum())
    alpha = 4 * counts[rows] / counts[rows].sum(axis=1, keepdims=True) + 0.1
    weight = np.full(components, 1 / components)
    for _ in range(passes):
        prior = Mixture(np.log(weight)[None], alpha[None])
        posterior, _evidence = prior.given(counts)
        credit = posterior.weight * times[:, None]
        weight = (credit.sum(axis=0) + 1e-2) / (credit.sum() + 1e-2 * components)
        for _ in range(2):
            alpha = _step(alpha, counts, credit)
    return weight, alpha


def _step(alpha: np.ndarray, counts: np.ndarray, credit: np.ndarray) -> np.ndarray:
    from scipy.special import digamma

    totals, sums = counts.sum(axis=1), alpha.sum(axis=1)
    gain = np.stack(
        [
            (credit * (digamma(column[:, None] + shape) - digamma(shape))).sum(axis=0)
            for column, shape in zip(counts.T, alpha.T, strict=True)
        ],
        axis=1,
    )
    spent = (credit * (digamma(totals[:, None] + sums) - digamma(sums))).sum(axis=0)
    return np.clip(alpha * gain / np.maximum(spent, 1e-12)[:, None], _FLOOR, _CEILING)


def adapted(weight: np.ndarray, alpha: np.ndarray, counts: np.ndarray, worth: float) -> np.ndarray:
    """How common each component is in other data: its weight, re-estimated in ten passes.

    Args:
        worth: how many faces the given weights stand for.
    """
    fresh = weight
    vectors, times = np.unique(counts, axis=0, return_counts=True)
    for _ in range(10 if len(vectors) else 0):
        posterior, _evidence = Mixture(np.log(fresh)[None], alpha[None]).given(vectors)
        credit = (posterior.weight * times[:, None]).sum(axis=0)
        fresh = (credit + worth * weight) / (credit.sum() + worth)
    return fresh
