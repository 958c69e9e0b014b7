"""Closed set: scores that rank faces of an untrained class."""

from __future__ import annotations

import numpy as np
import pytest

from annotation import audit
from annotation.audit.open_set import FUSED, SCORES, ClosedSet, cycle_training

N, WIDTH = 60, 20


def faces(seed: int = 0, *, n: int = N, apart: float = 3.5) -> tuple[np.ndarray, np.ndarray]:
    """Make four classes of n faces; class 3 is close to class 0."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, WIDTH))
    centres[3] = 0.4 * centres[0] + 0.8 * centres[3]
    label = np.repeat(np.arange(4), n)
    return centres[label] * apart / 4 + rng.normal(size=(4 * n, WIDTH)), label


def auroc(open_faces: np.ndarray, score: np.ndarray) -> float:
    ahead = score[open_faces][:, None] - score[~open_faces][None]
    return float(((ahead > 0) + 0.5 * (ahead == 0)).mean())


def test_closed_set__scores_rank_open_faces_higher() -> None:
    features, label = faces()
    pool, truth = faces(1)
    known = ClosedSet.fit(features[label < 3], label[label < 3])
    scores = known.scores(pool)
    assert tuple(scores) == SCORES
    found = {name: auroc(truth == 3, score) for name, score in scores.items()}
    assert min(found.values()) > 0.55, found
    fused = known.fused(scores)
    assert 0 <= fused.min() <= fused.max() <= 1
    assert auroc(truth == 3, fused) > np.median([found[name] for name in FUSED])


def test_closed_set__score_does_not_depend_on_batch() -> None:
    features, label = faces()
    known = ClosedSet.fit(features[label < 3], label[label < 3])
    pool, _ = faces(1)
    whole = known.fused(known.scores(pool))
    alone = known.fused(known.scores(pool[:7]))
    np.testing.assert_allclose(alone, whole[:7])


def test_closed_set__two_classes_and_too_few_faces() -> None:
    features, label = faces()
    two = label < 2
    known = ClosedSet.fit(features[two], label[two])
    assert np.isfinite(known.fused(known.scores(features))).all()
    few = np.arange(40)
    assert ClosedSet.fit(features[few], label[few]) is None
    assert ClosedSet.fit(features[label == 1], label[label == 1]) is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_cycle_training__improves_ranking(mirrored: bool) -> None:
    features, label = faces(n=120)
    pool, truth = faces(1, n=120)
    closed = label < 3
    known = ClosedSet.fit(features[closed], label[closed])
    first = known.fused(known.scores(pool))
    views = {"mirrored": pool + np.random.default_rng(2).normal(size=pool.shape) * 0.3}
    given = views if mirrored else {}
    score = cycle_training(features[closed], label[closed], pool, first, **given)
    assert auroc(truth == 3, score) > auroc(truth == 3, first)
    again = cycle_training(features[closed], label[closed], pool, first, **given)
    np.testing.assert_array_equal(score, again)


def test_cycle_training__small_pool_keeps_order() -> None:
    features, label = faces()
    pool, _ = faces(1, n=3)
    first = np.arange(len(pool), dtype=float)
    score = cycle_training(features[label < 3], label[label < 3], pool, first)
    assert (np.diff(score) > 0).all()


def test_open_set__classes_rank_but_do_not_flag() -> None:
    features, label = faces(n=80)
    closed = np.flatnonzero(label < 3)
    odd = np.flatnonzero(label == 3)[:12]
    rows = np.concatenate([closed, odd])
    # Labelled as the most similar class, without open-set votes.
    given = np.concatenate([label[closed], np.zeros(12, dtype=int)])
    result = audit.run("open_set", labels=given, features=features[rows])
    plain = audit.run("open_set", features=features[rows])
    truth = np.arange(len(rows)) >= len(closed)

    def doubt(found: audit.AuditResult) -> np.ndarray:
        rank = dict(found.rows.select("face_id", "score").iter_rows())
        return -np.array([rank[str(row)] for row in range(len(rows))])

    assert "classes" in result.statistics["evidence"]
    assert auroc(truth, doubt(result)) > auroc(truth, doubt(plain))
    flagged = set(result.rows.filter("flag")["detail"])
    assert "unlike the faces of every class" not in flagged or len(flagged) < 4
