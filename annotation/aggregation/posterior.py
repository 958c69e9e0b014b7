"""Posterior: votes weighed by rater, with the machine rating as prior."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from annotation.aggregation.base import Aggregator, closed_share
from annotation.aggregation.dawid_skene import OneCoinDawidSkene, one_coin_log_odds
from annotation.aggregation.dirichlet_mixture import DirichletMixture, Prior
from annotation.aggregation.vote_share import SmoothedVoteShare
from annotation.aggregation.votes import FloatArray, VoteTable

_FLOOR = 0.05
"""Share of the mean answer of all faces in the prior of a true answer, so that no machine rating
rules an answer out."""

_MAX_WEIGHT = 2.0
"""Votes that the best rater's vote counts as."""

_DIGITS = 4
"""Decimals of a weight. The last bit of a sum depends on the order of raters, which differs between
homes; equal votes must give equal labels."""

_BELOW = 0.9
"""Share of the votes for the first answer that smoothing adds at most to another answer, so that it
never overrules votes that agree."""


class Posterior(Aggregator):
    """Expected answer of the next person, from votes, raters and machine.

    A face with a machine rating gets the posterior mean of ``DirichletMixture``, any other face the
    smoothed vote share. Votes are weighed by their rater's reliability: its skill by
    ``OneCoinDawidSkene``, with the machine rating as the prior of each true answer, shrunk to the
    mean skill by ``prior_votes``. The weight is the log odds of the skill over those of the mean
    skill, between 0 and 2, and 1 on average. Equal raters, raters with few votes and a single rater
    therefore get the posterior of the plain votes.

    Args:
        prior_votes: votes of the mean skill added to each rater's own. Of 2, 5, 10, 20 and 60, few
            are best if some raters are careless, and none costs anything if all are equal (FER+
            pictures set aside, 9 or 120 votes a rater).
        prior: the fitted prior of ``DirichletMixture``; its default if ``None``.

    Attributes:
        weight_: float64[n_raters], the votes that a vote of each rater counts as.
        skill_: float64[n_raters] in (0, 1), the share of right answers, shrunk.
    """

    weight_: FloatArray
    skill_: FloatArray

    def __init__(self, prior_votes: float = 5.0, prior: Prior | None = None) -> None:
        self.prior_votes, self._mixture = prior_votes, DirichletMixture(prior=prior)

    @property
    def method(self) -> str:
        version = self._mixture.prior_version
        return f"posterior(prior_votes={self.prior_votes:g}, prior={version})"

    def fit(self, votes: VoteTable) -> Self:
        self.skill_ = self._fit_skills(votes)
        self.weight_ = self._weights(votes)
        counts = _weighted_counts(votes, self.weight_)
        self.probabilities_ = _smoothed(votes, counts)
        known = _is_rated(votes)
        if votes.machine is None or not known.any():
            return self
        answers = np.zeros_like(counts)
        rated = np.flatnonzero(known)
        posteriors = self._mixture.posteriors(
            counts[rated], votes.machine[rated], unweighted=votes.counts()[rated]
        )
        for rows, posterior in posteriors:
            answers[rated[rows]] = posterior.mean()
        self.probabilities_[rated] = closed_share(answers, votes)[rated]
        return self

    def _fit_skills(self, votes: VoteTable) -> FloatArray:
        shares = votes.counts("share").sum(axis=0) + 1
        prior = np.tile(shares / shares.sum(), (len(votes.face_ids), 1))
        known = _is_rated(votes)
        if votes.machine is not None:
            prior[known] = _FLOOR * prior[known] + (1 - _FLOOR) * votes.machine[known]
        one_coin = OneCoinDawidSkene(prior_votes=self.prior_votes, prior=prior)
        return one_coin.fit(votes).skill_

    def _weights(self, votes: VoteTable) -> FloatArray:
        if not votes.rater_ids:
            return np.ones(0)
        given = np.bincount(
            votes.answers["rater"].to_numpy(),
            weights=votes.answers["share"].to_numpy(),
            minlength=len(votes.rater_ids),
        )
        total = given.sum()
        typical = one_coin_log_odds(np.atleast_1d((given * self.skill_).sum() / total)).item()
        # If the mean rater is no better than chance, skills order nothing.
        if typical <= 0:
            return np.ones_like(given)
        weight = np.clip(one_coin_log_odds(self.skill_) / typical, 0, _MAX_WEIGHT)
        mean = (given * weight).sum() / total
        rounded: FloatArray = np.round(np.minimum(weight / mean, _MAX_WEIGHT), _DIGITS)
        return rounded


def _is_rated(votes: VoteTable) -> npt.NDArray[np.bool_]:
    if votes.machine is None:
        return np.zeros(len(votes.face_ids), dtype=bool)
    return np.asarray(~np.isnan(votes.machine).any(axis=1))


def _weighted_counts(votes: VoteTable, weight: FloatArray) -> FloatArray:
    """Sum the votes' weights times their rater's: float64[n_faces, 10]."""
    rows = votes.answers
    table = votes.sum(rows["weight"].to_numpy() * weight[rows["rater"].to_numpy()])
    # A face whose raters all have weight 0 keeps its votes.
    empty = table.sum(axis=1) <= 0
    table[empty] = votes.counts()[empty]
    return table


def _smoothed(votes: VoteTable, counts: FloatArray) -> FloatArray:
    method = SmoothedVoteShare().fit(votes)
    closed = counts[:, : len(method.prior_)]
    most = closed.max(axis=1, initial=0.0, keepdims=True)
    strength = np.minimum(method.strength, _BELOW * most / method.prior_.max())
    total = closed.sum(axis=1, keepdims=True)
    shares: FloatArray = np.full_like(closed, np.nan)
    smoothed = closed + strength * method.prior_
    np.divide(smoothed, total + strength, out=shares, where=total > 0)
    return shares
