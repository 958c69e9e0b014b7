"""CROWDLAB: weigh raters and a machine rater against each other."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from annotation.aggregation.base import Aggregator
from annotation.aggregation.vote_share import VoteShare
from annotation.aggregation.votes import FloatArray, VoteTable
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

_MAX_CELLS = 50_000_000
"""cleanlab needs a dense table of faces x raters; more cells take gigabytes."""


@dataclass(frozen=True)
class Posterior:
    """Posterior of CROWDLAB (Goh et al., 2022, arXiv:2210.06812).

    Attributes:
        voted: float64[n, 8], probability that an expression is the true one. NaN for expressions
            without a vote.
        probabilities: float64[n, 8], the same for all expressions; rows sum to 1. NaN rows for
            faces without a usable vote.
        consensus: int[n], the most probable expression; -1 for faces without a usable vote.
        rater_weight: rater_id to its weight in the ensemble.
        machine_weight: weight of the machine rater.
    """

    voted: FloatArray
    probabilities: FloatArray
    consensus: npt.NDArray[np.int64]
    rater_weight: dict[str, float]
    machine_weight: float


class Crowdlab(Aggregator):
    """Posterior of CROWDLAB as a label.

    It needs a machine rater and faces with several raters, and estimates how likely each expression
    is the *consensus*. One global agreement bounds it, so even ten equal votes leave doubt,
    distributed evenly over the other expressions. It ranks labels by trust well but is flat as a
    soft label.

    Attributes:
        probabilities_: as in ``Aggregator``; the vote share for faces where no rater gave a
            single closed answer.
        rater_weight_: rater_id to weight.
    """

    rater_weight_: dict[str, float]

    @property
    def method(self) -> str:
        return "crowdlab"

    def fit(self, votes: VoteTable) -> Self:
        """Weigh the raters and the machine.

        Raises:
            SettingsError: a face has no machine rating, or no face has two raters.
        """
        self.probabilities_, self.rater_weight_ = VoteShare().fit_predict_proba(votes), {}
        if not votes.face_ids:
            return self
        if votes.machine is None or np.isnan(votes.machine).any():
            raise _not_applicable("faces that no machine rated")
        closed = votes.machine[:, : len(EXPRESSIONS)] + 1e-9
        machine = closed / closed.sum(axis=1, keepdims=True)
        found = posterior(votes, votes.face_ids, machine)
        if found is None:
            raise _not_applicable("no face that two raters gave a single expression")
        missing = np.isnan(found.probabilities)
        self.probabilities_ = np.where(missing, self.probabilities_, found.probabilities)
        self.rater_weight_ = found.rater_weight
        return self


def _not_applicable(got: str) -> SettingsError:
    return SettingsError(
        "crowdlab needs a machine rating of every face and faces with several raters",
        got=got,
        hint="pass machine=, collect more votes, or use posterior or vote_share",
    )


def posterior(votes: VoteTable, face_ids: list[str], machine: FloatArray) -> Posterior | None:
    """Run CROWDLAB on the votes about ``face_ids``.

    CROWDLAB takes one closed answer per rater and face, so open-set votes and several answers of
    one rater are left out.

    Args:
        machine: float64[n, 8], out-of-sample probabilities in the order of ``face_ids``.

    Returns:
        ``None`` if no face has two raters left or the table of faces x raters has more than fifty
        million cells.
    """
    single = _single_answers(votes, face_ids)
    raters = single["rater_id"].unique().sort().to_list()
    most_raters = single.group_by("row").len()["len"].max()
    if len(raters) < 2 or not isinstance(most_raters, int) or most_raters < 2:
        return None
    row, answer = single["row"].to_numpy(), single["answer"].to_numpy()
    rows = single["row"].unique().sort().to_numpy()
    if len(rows) * len(raters) > _MAX_CELLS:
        return None
    cells = (
        np.searchsorted(rows, row),
        np.searchsorted(np.array(raters), single["rater_id"].to_numpy().astype(str)),
    )
    table = np.full((len(rows), len(raters)), np.nan)
    table[cells] = answer
    info = _run_cleanlab(table, machine[rows])
    if info is None:
        return None
    voted = np.full(machine.shape, np.nan)
    voted[row, answer] = info["detailed_label_quality"].to_numpy()[cells]
    consensus = np.full(len(machine), -1)
    consensus[rows] = info["label_quality"]["consensus_label"].to_numpy()
    weights = np.asarray(info["annotator_weight"], dtype=float)
    machine_weight = float(info["model_weight"])
    rater_weights = np.bincount(row, weights=weights[cells[1]], minlength=len(machine))
    machine_share = machine_weight / np.asarray(machine_weight + rater_weights, dtype=np.float64)
    return Posterior(
        np.clip(voted, 0, 1),
        _all_expressions(voted, machine, machine_share),
        consensus,
        dict(zip(raters, weights.tolist(), strict=True)),
        machine_weight,
    )


def _all_expressions(
    voted: FloatArray, machine: FloatArray, machine_share: FloatArray
) -> FloatArray:
    """Extend ``voted`` to the expressions without a vote.

    cleanlab returns only expressions with a vote. On the others, the raters' mass is even and the
    machine's follows its probabilities, which leaves one unknown per face.

    Args:
        machine_share: float64[n], the machine's share of all weight on the face.
    """
    unvoted = np.isnan(voted)
    left = 1 - np.nansum(voted, axis=1)
    of_machine = machine * machine_share[:, None]
    even = (left - (of_machine * unvoted).sum(axis=1)) / np.maximum(unvoted.sum(axis=1), 1)
    full = np.where(unvoted, of_machine + even[:, None], voted)
    full = np.clip(full, 0, None)
    full[unvoted.all(axis=1)] = np.nan
    probabilities: FloatArray = full / full.sum(axis=1, keepdims=True)
    return probabilities


def _single_answers(votes: VoteTable, face_ids: list[str]) -> pl.DataFrame:
    single = (pl.len().over("face", "rater") == 1) & (pl.col("answer") < len(EXPRESSIONS))
    rows = pl.DataFrame(
        {"face_id": face_ids, "row": range(len(face_ids))},
        schema={"face_id": pl.String, "row": pl.Int64},
    )
    answers = votes.with_ids(votes.answers.filter(single)).join(rows, on="face_id")
    return answers.select("row", "rater_id", "answer").sort("row", "rater_id")


def _run_cleanlab(table: FloatArray, machine: FloatArray) -> dict[str, Any] | None:
    from cleanlab.multiannotator import get_label_quality_multiannotator

    # cleanlab breaks ties with NumPy's global generator. Equal votes must give equal labels.
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # It warns about raters who never agree and classes without votes. Both are normal.
            warnings.simplefilter("ignore")
            info: dict[str, Any] = get_label_quality_multiannotator(
                table,
                machine,
                consensus_method="best_quality",
                return_annotator_stats=False,
                return_weights=True,
                verbose=False,
            )
            return info
    except ValueError:
        # Too few votes, such as a single face whose only two raters differ.
        return None
    finally:
        np.random.set_state(state)
