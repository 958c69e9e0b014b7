"""Open set: which faces show none of the known expressions?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.audit import inputs
from annotation.audit.base import AuditResult, result_of
from annotation.audit.inputs import Values
from annotation.audit.knn import Neighbours, nearest
from annotation.audit.ood_score import ClosedSet
from warehouse.errors import SettingsError, TableError

_NEIGHBOURS = 10
_FEWEST = 10
"""Faces below which "unlike the others" has no meaning."""

_FOLDS = 5

_SAME = 1e-6
"""Median neighbour distance below which most faces are copies and the rest look endlessly far."""

_SLOPE = math.log(2) / 1.7
"""Halves the evidence at 2.7 median distances; 0.2 % of FER+'s faces lie farther than that."""

_SAYS = {
    "people": "people say unknown or not a face",
    "rater": "the machine rater finds no known expression",
    "probability": "the machine rater cannot choose",
    "features": "unlike the other faces",
    "classes": "unlike the faces of every class",
}


@dataclass(frozen=True)
class OpenSet:
    """People's own answers first, the machine's doubts where people are few.

    Evidence that a face is *closed* (shows a known expression), each in [0, 1]:

    - *rater*: 1 - the machine rater's mass on ``unknown`` and ``not_a_face``.
    - *probability*: cleanlab's ``OutOfDistribution`` on the probabilities, from 1 for a certain
      rater to 1/2 for one that cannot choose at all: 1 - half the normalised entropy. Ambiguous
      faces are common and mostly closed, so this alone ranks and never flags.
    - *features*: cleanlab's ``OutOfDistribution`` on the features, from the mean cosine distance
      to the nearest k: 1 for the nearer half of the faces, 1/2 at 2.7 times the median distance,
      1/4 at 4.4 times. k = sqrt(n), at most 10; not used under ten faces, or when most faces are
      copies of each other.

    - *classes*: 1 - half of ``openness.ClosedSet.fused``, learned from the labels of the other
      faces in five folds; from 1 for a face more usual than all to 1/2 for one more unusual than
      all, so this too ranks and never flags alone. Needs fifty labelled faces of two classes.

    The machine's score is *rater* times the geometric mean of the others, whichever are there.
    With n votes, of which the share s is open-set, ``score = (2 * machine + n * (1 - s)) /
    (2 + n)``: the machine counts as two voters, because a single ``unknown`` vote is close to
    noise (kappa 0.05 on FER+). ``flag``: score under ``threshold``. ``detail``: the weakest
    evidence of a flagged face.

    Distances are scaled by the set's own median, so scores of different sets compare only
    roughly. Machine evidence ranks what to review and is no filter: on 12,000 FER+ faces, 2.9 %
    of them with three open-set votes or more, *probability* of a linear rater reached an AUROC of
    0.65 and *features* (MediaPipe blendshapes) 0.56.
    """

    name = "open_set"
    threshold: float = 0.5
    machine_votes: float = 2.0

    def find(
        self,
        *,
        labels: Values | None = None,
        probabilities: Values | None = None,
        features: Values | None = None,
        open_set: Values | None = None,
        face_ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        neighbours: Neighbours | None = None,
    ) -> AuditResult:
        """Audit faces by whatever evidence there is; at least one of the four.

        Args:
            labels: a ``soft_labels`` frame (its ``open_set_share`` and ``n_votes`` count), or one
                answer per face as text (one vote each); other arrays hold no open-set evidence.
            probabilities: float[n, 8], or a ``ratings`` frame.
            features: float[n, d], or a ``ratings`` frame.
            open_set: float[n, 2], the rater's mass on the open-set answers, or a ``ratings``
                frame.
            face_ids: the order of the arrays; see ``inputs.ids_of``.
            groups: one per face; a face is not judged by what its group shows.
            neighbours: the faces' nearest by ``features`` where they are known, ten at least;
                saves the search.

        Raises:
            SettingsError: no evidence at all.
            TableError: arrays of another shape or with NaN, neighbours of other faces.
        """
        given = (labels, probabilities, features, open_set)
        if all(value is None for value in given):
            raise SettingsError(
                "labels, probabilities, features or open_set for the open_set audit",
                got="none of them",
                hint="pass the soft labels, or the ratings of a machine rater",
            )
        ids = inputs.ids_of(face_ids, *given)
        machine, learned = _machine(probabilities, features, open_set, ids=ids, near=neighbours)
        if labels is not None and features is not None:
            machine |= _by_classes(labels, features, ids=ids, groups=groups)
        share, n_votes = (np.zeros(len(ids)), np.zeros(len(ids)))
        if labels is not None:
            share, n_votes = inputs.open_votes(labels, ids)
        scores = self._combined(machine, share, n_votes)
        # A face without any evidence has nothing against it, and nothing for it.
        flags = np.nan_to_num(scores, nan=1.0) < self.threshold
        voted = np.where(n_votes > 0, 1 - share, np.nan)
        return result_of(
            self.name,
            face_ids=ids,
            scores=scores,
            flags=flags,
            details=_reasons(flags, {"people": voted, **machine}),
            statistics={
                "flagged": int(flags.sum()),
                "evidence": ", ".join(["people"] * bool(n_votes.any()) + list(machine)) or "none",
                "with_open_votes": int((share > 0).sum()),
                **learned,
            },
        )

    def _combined(
        self, machine: dict[str, np.ndarray], share: np.ndarray, n_votes: np.ndarray
    ) -> np.ndarray:
        closed, weight = np.zeros(len(share)), np.zeros(len(share))
        if machine:
            typical = [terms for name, terms in machine.items() if name != "rater"]
            closed = machine.get("rater", np.ones(len(share)))
            if typical:
                closed = closed * np.prod(typical, axis=0) ** (1 / len(typical))
            weight += self.machine_votes
        total = weight + n_votes
        said = weight * closed + n_votes * (1 - share)
        return np.divide(said, total, out=np.full(len(share), np.nan), where=total > 0)


def _machine(
    probabilities: Values | None,
    features: Values | None,
    open_set: Values | None,
    *,
    ids: list[str],
    near: Neighbours | None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    found: dict[str, np.ndarray] = {}
    learned: dict[str, float] = {}
    if open_set is not None:
        mass = inputs.matrix(open_set, ids, name="open_set", column="open_set", width=2)
        found["rater"] = np.clip(1 - mass.sum(axis=1), 0, 1)
    if probabilities is not None:
        belief = inputs.distributions(probabilities, ids, name="probabilities")
        found["probability"] = _by_entropy(belief)
    if features is not None:
        array = inputs.matrix(features, ids, name="features", column="feature")
        typical, learned = _by_distance(array, near)
        if typical is not None:
            found["features"] = typical
    return found, learned


def _by_classes(
    labels: Values, features: Values, *, ids: list[str], groups: Sequence[str] | None
) -> dict[str, np.ndarray]:
    soft = inputs.soft(labels, ids)
    array = inputs.matrix(features, ids, name="features", column="feature")
    share, _ = inputs.open_votes(labels, ids)
    label = np.nan_to_num(soft).argmax(axis=1)
    # What people find open must not teach what closed faces look like.
    closed = ~np.isnan(soft[:, 0]) & (share < 0.5)
    names = np.asarray(ids if groups is None else groups, dtype=str)
    _, group = np.unique(names, return_inverse=True)
    part = np.random.default_rng(0).permutation(group.max(initial=0) + 1)[group] % _FOLDS
    found = np.full(len(ids), np.nan)
    for fold in range(_FOLDS):
        teachers, pupils = closed & (part != fold), part == fold
        known = ClosedSet.fit(array[teachers], label[teachers])
        if known is None:
            return {}
        if pupils.any():
            found[pupils] = 1 - known.fused(known.scores(array[pupils])) / 2
    return {"classes": found}


def _by_entropy(belief: np.ndarray) -> np.ndarray:
    from cleanlab.outlier import OutOfDistribution

    if not len(belief):
        return np.empty(0)
    scorer = OutOfDistribution(params={"adjust_pred_probs": False, "method": "entropy"})
    return (1 + np.clip(scorer.score(pred_probs=belief), 0, 1)) / 2


def _by_distance(
    features: np.ndarray, near: Neighbours | None
) -> tuple[np.ndarray | None, dict[str, float]]:
    from cleanlab.outlier import OutOfDistribution

    if near is not None and len(near) != len(features):
        raise TableError(
            f"neighbours of {len(features)} faces",
            got=f"of {len(near)}",
            hint="search among these faces, or leave neighbours out",
        )
    if len(features) < _FEWEST:
        return None, {}
    k = min(_NEIGHBOURS, math.isqrt(len(features)))
    known = _Known(nearest(features, k=k) if near is None else near.first(k))
    scorer = OutOfDistribution(params={"k": k, "t": _SLOPE, "knn": known})
    scores = scorer.score(features=features)
    median = float(scorer.params["scaling_factor"])
    if median < _SAME:
        return None, {"median_distance": median, "k": k}
    return np.clip(scores * math.exp(_SLOPE), 0, 1), {"median_distance": median, "k": k}


class _Known:
    """Neighbours found once, in the shape of the estimator that cleanlab asks (twice) for them."""

    metric = "cosine"

    def __init__(self, near: Neighbours) -> None:
        self.n_neighbors = near.row.shape[1]
        self._found = (1 - near.cosine.astype(np.float64), near.row)

    def kneighbors(self, _features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._found


def _reasons(flags: np.ndarray, evidence: dict[str, np.ndarray]) -> list[str | None]:
    if not len(flags):
        return []
    table = np.stack(list(evidence.values()))
    weakest = np.where(np.isnan(table), np.inf, table).argmin(axis=0)
    says = [_SAYS[name] for name in evidence]
    return [says[row] if flag else None for flag, row in zip(flags, weakest, strict=True)]
