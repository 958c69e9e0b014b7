"""Dawid-Skene: estimate the one true answer and each rater's errors by EM."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from annotation.aggregation.base import Aggregator, closed_share
from annotation.aggregation.votes import FloatArray, VoteTable
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_WIDTH, _CLOSED = len(ANSWERS), len(EXPRESSIONS)
_FLOOR = 1e-10
_EDGE = 1e-6


class EMAggregator(Aggregator):
    """Base class of the EM methods over true answers and rater skills.

    EM starts from the vote share, or from ``votes.start`` for the faces it contains. The posterior
    says which class is true, not how people see the face, so it is sharper than a soft label.

    Args:
        n_iter: maximum number of EM iterations.
        tol: stop if no posterior changes by more.
        prior_votes: votes that each rater's skill starts with. 0 is the textbook method, which
            fully trusts a rater's only vote.

    Attributes:
        answers_: float64[n_faces, 10], the posterior over ``ANSWERS``.
        n_iter_: number of iterations made.
    """

    name: ClassVar[str]
    answers_: FloatArray
    n_iter_: int

    def __init__(self, n_iter: int = 100, tol: float = 1e-4, prior_votes: float = 1.0) -> None:
        self.n_iter, self.tol, self.prior_votes = n_iter, tol, prior_votes

    @property
    def method(self) -> str:
        return f"{self.name}(passes={self.n_iter}, prior_votes={self.prior_votes:g})"

    def fit(self, votes: VoteTable) -> Self:
        posterior = _initial_posterior(votes)
        iterate = self._iteration(votes)
        self.n_iter_ = 0
        while len(posterior) and self.n_iter_ < self.n_iter:
            previous, posterior = posterior, iterate(posterior)
            self.n_iter_ += 1
            if float(np.abs(posterior - previous).max()) < self.tol:
                break
        self.answers_ = posterior
        self.probabilities_ = closed_share(posterior, votes)
        return self

    @abstractmethod
    def _iteration(self, votes: VoteTable) -> Callable[[FloatArray], FloatArray]:
        """Return one EM iteration on posteriors float64[n_faces, 10]."""


class DawidSkene(EMAggregator):
    """One confusion matrix per rater, in log space.

    Dawid and Skene, 1979, doi:10.2307/2346806. Both steps are one product with the sparse table
    [faces, raters x answers], so an iteration costs time linear in the votes. Each of several
    answers of a rater counts with its share. The matrices are meaningless if rater ids are (counts
    assigned to arbitrary raters).

    Args:
        prior_votes: votes per true answer that each confusion matrix starts with, distributed as
            the answers of all raters.

    Attributes:
        confusion_: float64[n_raters, 10, 10], P(answer | truth); row = truth.
        prior_: float64[10].
    """

    name = "dawid_skene"
    confusion_: FloatArray
    prior_: FloatArray

    def _iteration(self, votes: VoteTable) -> Callable[[FloatArray], FloatArray]:
        cells = _sparse_answers(votes)
        if not votes.face_ids:
            self._maximize(cells, np.zeros((0, _WIDTH)))

        def iterate(posterior: FloatArray) -> FloatArray:
            scores = cells @ self._maximize(cells, posterior)
            scores += np.log(np.maximum(self.prior_, _FLOOR))
            return _softmax(scores)

        return iterate

    def _maximize(self, cells: csr_array, posterior: FloatArray) -> FloatArray:
        """M step. Returns log P(answer | truth) float64[n_raters * 10, 10]."""
        counts = np.asarray(cells.T @ posterior).reshape(-1, _WIDTH, _WIDTH)
        average = counts.sum(axis=0)
        average = average / np.maximum(average.sum(axis=0), _FLOOR)
        counts = counts + self.prior_votes * average
        counts = np.maximum(counts, _FLOOR)
        table = counts / counts.sum(axis=1, keepdims=True)
        self.prior_ = posterior.mean(axis=0) if len(posterior) else np.full(_WIDTH, 1 / _WIDTH)
        self.confusion_ = table.transpose(0, 2, 1)
        log_likelihood: FloatArray = np.log(table).reshape(-1, _WIDTH)
        return log_likelihood


class OneCoinDawidSkene(EMAggregator):
    """One skill per rater; all nine wrong answers are equally likely.

    It has a hundredth of the parameters of ``DawidSkene`` and so needs far fewer votes per rater
    (the homogeneous model of Zhang et al., 2016, JMLR 17(102)).

    Args:
        prior_votes: votes of average skill added to each rater's own.
        prior: float64[n_faces, 10] above 0, the probability of each true answer before the votes.
            By default the mean posterior of all faces.

    Attributes:
        skill_: float64[n_raters] in (0, 1).
    """

    name = "one_coin"
    skill_: FloatArray

    def __init__(
        self,
        n_iter: int = 100,
        tol: float = 1e-4,
        prior_votes: float = 1.0,
        prior: FloatArray | None = None,
    ) -> None:
        super().__init__(n_iter, tol, prior_votes)
        self.prior = prior

    def _iteration(self, votes: VoteTable) -> Callable[[FloatArray], FloatArray]:
        face, rater, answer, share = (
            votes.answers[name].to_numpy() for name in ("face", "rater", "answer", "share")
        )
        cell, n_raters = face * _WIDTH + answer, len(votes.rater_ids)
        given = np.bincount(rater, weights=share, minlength=n_raters)
        self.skill_ = np.full(n_raters, 0.5)

        def iterate(posterior: FloatArray) -> FloatArray:
            correct = np.bincount(
                rater, weights=share * posterior[face, answer], minlength=n_raters
            )
            mean = correct.sum() / given.sum()
            skill = (correct + self.prior_votes * mean) / (given + self.prior_votes)
            self.skill_ = np.clip(skill, _EDGE, 1 - _EDGE)
            log_odds = one_coin_log_odds(self.skill_)
            scores = np.bincount(cell, weights=share * log_odds[rater], minlength=posterior.size)
            prior = posterior.mean(axis=0) if self.prior is None else self.prior
            logs: FloatArray = np.log(np.maximum(prior, _EDGE))
            return _softmax(scores.reshape(posterior.shape) + logs)

        return iterate


def one_coin_log_odds(skill: FloatArray) -> FloatArray:
    """Evidence in nats that a vote gives its answer over each other answer."""
    log_odds: FloatArray = np.log(skill) - np.log((1 - skill) / (_WIDTH - 1))
    return log_odds


def _initial_posterior(votes: VoteTable) -> FloatArray:
    """Vote shares float64[n_faces, 10], or ``votes.start`` if it has the face."""
    counts = votes.counts("share")
    posterior: FloatArray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    if votes.start is not None:
        known = ~np.isnan(votes.start).any(axis=1)
        closed = posterior[known, :_CLOSED].sum(axis=1, keepdims=True)
        posterior[known, :_CLOSED] = votes.start[known] * closed
    return posterior


def _softmax(logs: FloatArray) -> FloatArray:
    logs = logs - logs.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(logs)
    probabilities: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def _sparse_answers(votes: VoteTable) -> csr_array:
    """The share of each answer as a sparse table [faces, raters x answers]."""
    from scipy.sparse import csr_array

    rows = votes.answers
    column = rows["rater"].to_numpy() * _WIDTH + rows["answer"].to_numpy()
    shape = (len(votes.face_ids), len(votes.rater_ids) * _WIDTH)
    # Answers are sorted by face, so row starts are enough: no sorting and no copies.
    starts = np.searchsorted(rows["face"].to_numpy(), np.arange(shape[0] + 1))
    # 32-bit indices cut memory traffic, which bounds an iteration, by a quarter.
    dtype = np.int32 if max(rows.height, shape[1]) < 2**31 else np.int64
    index = (column.astype(dtype), starts.astype(dtype))
    return csr_array((rows["share"].to_numpy(), *index), shape=shape)
