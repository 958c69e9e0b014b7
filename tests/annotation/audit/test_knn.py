"""Nearest neighbours: the index against all pairs, shared by audits."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation import audit
from annotation.audit import knn
from warehouse.errors import TableError

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(40, 24))
FEATURES = (CENTRES[RNG.integers(0, 40, 3000)] + 0.4 * RNG.normal(size=(3000, 24))).astype("f4")


def recall(found: knn.Neighbours, true: knn.Neighbours) -> float:
    pairs = zip(found.row, true.row, strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


@pytest.fixture(scope="module")
def exact() -> knn.Neighbours:
    return knn.nearest(FEATURES, k=10)


@pytest.fixture(scope="module")
def approximate() -> knn.Neighbours:
    return knn.nearest(FEATURES, k=10, exact=0)


def test_nearest__index_has_high_recall(exact: knn.Neighbours, approximate: knn.Neighbours) -> None:
    assert recall(approximate, exact) > 0.98
    assert (approximate.row != np.arange(3000)[:, None]).all()
    assert all(len(set(row)) == 10 for row in approximate.row.tolist())
    assert (np.diff(approximate.cosine, axis=1) <= 0).all()
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    cosine = np.einsum("nd,nkd->nk", unit, unit[approximate.row])
    assert approximate.cosine == pytest.approx(cosine, abs=1e-5)


def test_nearest__index_is_deterministic(approximate: knn.Neighbours) -> None:
    again = knn.nearest(FEATURES, k=10, exact=0)
    assert (again.row == approximate.row).all()
    assert (again.cosine == approximate.cosine).all()


def test_nearest_in__index_has_high_recall() -> None:
    asked = FEATURES[:200] + np.float32(0.01)
    true = knn.nearest_in(FEATURES, asked, k=5)
    found = knn.nearest_in(FEATURES, asked, k=5, exact=0)
    assert recall(found, true) > 0.98
    assert (true.row[:, 0] == np.arange(200)).mean() > 0.95


def test_nearest__index_with_many_copies() -> None:
    # Copies that crowd an index hide some of the other neighbours, not most.
    still = np.repeat(FEATURES[:1], 300, axis=0)
    faces = np.vstack([FEATURES[:700], still])
    found = knn.nearest(faces, k=10, exact=0)
    copies = [0, *range(700, 1000)]
    assert (found.cosine[copies] > 0.9999).all()
    assert (found.row != np.arange(1000)[:, None]).all()
    others = knn.nearest(FEATURES[:700], k=10)
    rest = [row for row in range(1, 700) if 0 not in others.row[row]]
    kept = knn.Neighbours(found.cosine[rest], found.row[rest])
    assert recall(kept, knn.Neighbours(others.cosine[rest], others.row[rest])) > 0.85


@pytest.mark.parametrize("exact", [0, 100])
@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 0), (2, 1), (5, 4)])
def test_nearest__few_faces(n: int, k: int, exact: int) -> None:
    found = knn.nearest(FEATURES[:n], k=10, exact=exact)
    assert found.row.shape == found.cosine.shape == (n, k)
    assert all(sorted([row, *near]) == list(range(n)) for row, near in enumerate(found.row))


@pytest.mark.parametrize("exact", [0, 100])
def test_nearest__zero_feature(exact: int) -> None:
    faces = np.vstack([FEATURES[:20], np.zeros((1, 24), "f4")])
    assert knn.nearest(faces, k=3, exact=exact).cosine[20] == pytest.approx(0)


def test_audits__share_one_search() -> None:
    some, ids = FEATURES[:400], [f"{row:04d}" for row in range(400)]
    near = knn.nearest(some, k=10)
    given = {"features": some, "probabilities": np.full((400, 8), 0.125), "face_ids": ids}
    alone = audit.run("open_set", **given).rows
    shared = audit.run("open_set", **given, neighbours=near).rows
    assert shared["score"].to_list() == pytest.approx(alone["score"].to_list(), abs=1e-5)
    assert alone["score"].n_unique() > 100
    faces = pl.DataFrame({"face_id": ids, "feature": some.tolist(), "sharpness": RNG.random(400)})
    settings = {"faces": faces, "similarity_alone": 0.9}
    alone = audit.run("near_duplicates", **settings)
    shared = audit.run("near_duplicates", **settings, neighbours=near)
    assert shared.rows.equals(alone.rows)
    assert shared.rows["flag"].sum() > 100


def test_knn_graph__works_in_cleanlab(exact: knn.Neighbours) -> None:
    from cleanlab import Datalab

    copies = knn.nearest(np.vstack([FEATURES[:200], FEATURES[:3]]), k=10)
    lab = Datalab({"name": [str(row) for row in range(203)]}, verbosity=0)
    lab.find_issues(knn_graph=copies.knn_graph(), issue_types={"near_duplicate": {}, "outlier": {}})
    found = lab.get_issues("near_duplicate")["is_near_duplicate_issue"]
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 200, 201, 202]
    unlike = lab.get_issues("outlier")["outlier_score"].to_numpy()
    nearness = copies.cosine.mean(axis=1)
    assert len(set(np.argsort(unlike)[:20]) & set(np.argsort(nearness)[:20])) >= 18
    assert exact.knn_graph().nnz == 30_000


def test_audits__reject_neighbours_of_other_faces(exact: knn.Neighbours) -> None:
    faces = pl.DataFrame({"face_id": ["a", "b"], "feature": FEATURES[:2].tolist()})
    with pytest.raises(TableError, match="of the same 2 faces"):
        audit.run("near_duplicates", faces=faces, neighbours=exact)
    with pytest.raises(TableError, match="neighbours of 12 faces"):
        audit.run("open_set", features=FEATURES[:12], neighbours=exact)
    with pytest.raises(TableError, match="not at least 20 neighbours"):
        exact.first(20)
