"""CROWDLAB: raters weighed against each other and against the machine, by cleanlab."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
import polars as pl

from annotation.aggregation.vote_share import VoteShare
from annotation.aggregation.votes import VoteTable, tally
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

_CELLS = 50_000_000
"""cleanlab wants faces x raters dense; beyond this many cells it needs gigabytes."""


@dataclass(frozen=True)
class Posterior:
    """What CROWDLAB believes of each face (Goh et al., 2022, arXiv:2210.06812).

    Attributes:
        right: float[n, 8]: probability that this expression is the true one; known for
            expressions that somebody voted for, NaN elsewhere.
        whole: float[n, 8]: the same for all expressions, rows sum to 1; NaN rows for faces
            without a usable vote.
        best: int[n]: the most probable expression; -1 for faces without a usable vote.
        worth: rater_id to weight in the ensemble.
        model_worth: the machine's weight beside them.
    """

    right: np.ndarray
    whole: np.ndarray
    best: np.ndarray
    worth: dict[str, float]
    model_worth: float


class Crowdlab:
    """The posterior of CROWDLAB as a label; needs a machine rater and raters who share faces.

    It says how likely each expression is the *consensus*: a single global agreement bounds it, so
    even ten equal votes leave doubt, spread evenly over all other expressions. Good at telling
    which label to trust; as a soft label it is flat.

    Attributes:
        probabilities_: float64[n_faces, 8], rows sum to 1; the vote share of faces on which
            nobody gave a single closed answer, NaN rows without any.
        worth_: rater_id to weight.
    """

    probabilities_: np.ndarray
    worth_: dict[str, float]

    @property
    def method(self) -> str:
        """What the ``method`` column says: the name and every setting that shaped the row."""
        return "crowdlab"

    def fit(self, votes: VoteTable) -> Crowdlab:
        """Weigh raters and machine.

        Raises:
            SettingsError: a face without a machine's reading, or no face that two raters share.
        """
        self.probabilities_, self.worth_ = VoteShare().fit_predict_proba(votes), {}
        if not votes.face_ids:
            return self
        if votes.machine is None or np.isnan(votes.machine).any():
            raise _refused("faces that no machine rated")
        closed = votes.machine[:, : len(EXPRESSIONS)] + 1e-9
        found = posterior_of(votes, closed / closed.sum(axis=1, keepdims=True))
        if found is None:
            raise _refused("no face that two raters gave a single expression")
        unheard = np.isnan(found.whole)
        self.probabilities_ = np.where(unheard, self.probabilities_, found.whole)
        self.worth_ = found.worth
        return self

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``."""
        return self.fit(votes).probabilities_


def _refused(got: str) -> SettingsError:
    return SettingsError(
        "ratings of every face and faces shared by raters, for crowdlab",
        got=got,
        hint="pass machine=, collect more votes, or use pooled or vote_share",
    )


def posterior(votes: pl.DataFrame, face_ids: list[str], belief: np.ndarray) -> Posterior | None:
    """CROWDLAB over the votes on ``face_ids``, or ``None`` where it does not apply.

    It knows one closed answer per rater and face, so open-set votes and several answers at once
    are left out. It applies when, after that, two raters or more share a face, and the table of
    faces x raters is no larger than fifty million cells.

    Args:
        votes: the long vote table.
        belief: float[n, 8], out-of-sample probabilities in the order of ``face_ids``.
    """
    return _posterior(_single_answers(tally(votes), face_ids), belief)


def posterior_of(votes: VoteTable, belief: np.ndarray) -> Posterior | None:
    """``posterior`` of a table that is in order already."""
    return _posterior(_single_answers(votes, votes.face_ids), belief)


def _posterior(single: pl.DataFrame, belief: np.ndarray) -> Posterior | None:
    raters = single["rater_id"].unique().sort().to_list()
    shared = single.group_by("row").len()["len"].max()
    if len(raters) < 2 or not isinstance(shared, int) or shared < 2:
        return None
    rows = single["row"].unique().sort().to_numpy()
    if len(rows) * len(raters) > _CELLS:
        return None
    wide = np.full((len(rows), len(raters)), np.nan)
    where = (
        np.searchsorted(rows, single["row"].to_numpy()),
        np.searchsorted(np.array(raters), single["rater_id"].to_numpy().astype(str)),
    )
    wide[where] = single["answer"].to_numpy()
    info = _run(wide, belief[rows])
    if info is None:
        return None
    right = np.full(belief.shape, np.nan)
    right[single["row"].to_numpy(), single["answer"].to_numpy()] = info[
        "detailed_label_quality"
    ].to_numpy()[where]
    best = np.full(len(belief), -1)
    best[rows] = info["label_quality"]["consensus_label"].to_numpy()
    weights = np.asarray(info["annotator_weight"], dtype=float)
    model = float(info["model_weight"])
    total = model + np.bincount(
        single["row"].to_numpy(), weights=weights[where[1]], minlength=len(belief)
    )
    return Posterior(
        np.clip(right, 0, 1),
        _whole(right, belief, model / total),
        best,
        dict(zip(raters, weights.tolist(), strict=True)),
        model,
    )


def _whole(right: np.ndarray, belief: np.ndarray, machine: np.ndarray) -> np.ndarray:
    """``right`` with the expressions that nobody chose.

    cleanlab tells only what somebody voted for. On the others the raters' mass lies evenly and
    the machine's as it says, which leaves one number per face to be solved for.

    Args:
        machine: float[n], the machine's share of all weight on the face.
    """
    silent = np.isnan(right)
    left = 1 - np.nansum(right, axis=1)
    of_machine = belief * machine[:, None]
    even = (left - (of_machine * silent).sum(axis=1)) / np.maximum(silent.sum(axis=1), 1)
    whole = np.where(silent, of_machine + even[:, None], right)
    whole = np.clip(whole, 0, None)
    whole[silent.all(axis=1)] = np.nan
    return whole / whole.sum(axis=1, keepdims=True)


def _single_answers(table: VoteTable, face_ids: list[str]) -> pl.DataFrame:
    one = (pl.len().over("face", "rater") == 1) & (pl.col("answer") < len(EXPRESSIONS))
    rows = pl.DataFrame(
        {"face_id": face_ids, "row": range(len(face_ids))},
        schema={"face_id": pl.String, "row": pl.Int64},
    )
    single = table.named(table.answers.filter(one)).join(rows, on="face_id")
    return single.select("row", "rater_id", "answer").sort("row", "rater_id")


def _run(wide: np.ndarray, belief: np.ndarray) -> dict | None:
    from cleanlab.multiannotator import get_label_quality_multiannotator

    # cleanlab breaks ties with NumPy's global dice; the same votes must give the same labels.
    dice = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # Raters who never agree, or a class nobody votes for, are ordinary here.
            warnings.simplefilter("ignore")
            return get_label_quality_multiannotator(
                wide,
                belief,
                consensus_method="best_quality",
                return_annotator_stats=False,
                return_weights=True,
                verbose=False,
            )
    except ValueError:
        # Too little to go on, such as a single face whose only two raters differ.
        return None
    finally:
        np.random.set_state(dice)
