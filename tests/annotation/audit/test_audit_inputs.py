"""Degenerate inputs: few faces, one class, no labels, invalid numbers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation import aggregation, audit
from warehouse.errors import SettingsError, TableError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS


def belief(n: int, classes: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(8), size=n) * 0.3
    rows[np.arange(n), np.arange(n) % classes] += 0.7
    return rows


def check(result: audit.AuditResult, n: int) -> None:
    assert result.rows.schema == TABLES["audits"].schema
    assert result.rows.height == n
    assert 0 <= result.score <= 1
    judged = result.rows["score"].drop_nulls()
    assert judged.is_between(0, 1).all()
    assert result.rows["flag"].null_count() == 0


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 10, 40])
@pytest.mark.parametrize("classes", [1, 2, 8])
def test_label_noise__few_correct_labels(n: int, classes: int) -> None:
    labels = np.arange(n) % classes
    result = audit.run(
        "label_noise", labels=labels, probabilities=belief(n, classes), out_of_sample=True
    )
    check(result, n)
    assert not result.rows["flag"].any()
    assert result.score > 0.5 or n == 0


@pytest.mark.parametrize("n", [0, 1, 2, 9, 10, 40])
@pytest.mark.parametrize("classes", [1, 2, 8])
def test_label_noise__cross_validated_on_few_faces(n: int, classes: int) -> None:
    features = np.random.default_rng(0).normal(size=(n, 256))
    result = audit.run("label_noise", labels=np.arange(n) % classes, features=features)
    check(result, n)
    # Too few faces or one class cannot train a classifier, so there is no score.
    judged = n if n >= 10 and classes > 1 else 0
    assert result.rows["score"].count() == judged


def test_label_noise__single_class() -> None:
    probabilities = np.full((40, 8), 0.02)
    probabilities[:, 0] = 0.86
    probabilities[7] = np.roll(probabilities[7], 1)
    probabilities[8] = [0.46, 0.5, 0.04, 0, 0, 0, 0, 0]
    result = audit.run(
        "label_noise", labels=["neutral"] * 40, probabilities=probabilities, out_of_sample=True
    )
    assert result.rows.filter("flag").select("face_id", "detail").rows() == [("7", "happiness")]


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([None, "unknown", "not_a_face"], id="names"),
        pytest.param(np.array([-1, -1, -1]), id="indices"),
        pytest.param(np.full((3, 8), np.nan), id="distributions"),
    ],
)
def test_label_noise__no_labels(labels: object) -> None:
    result = audit.run("label_noise", labels=labels, probabilities=belief(3, 2), out_of_sample=True)
    check(result, 3)
    assert (result.rows["score"].count(), result.score) == (0, 1.0)


@pytest.mark.parametrize(
    ("labels", "same"),
    [
        pytest.param(["happy", "sad"], [1, 3], id="synonyms"),
        pytest.param(np.eye(8)[[1, 3]], [1, 3], id="distributions"),
        pytest.param(np.array(["happiness", "sadness"]), [1, 3], id="array of names"),
    ],
)
def test_label_noise__accepts_all_label_forms(labels: object, same: list[int]) -> None:
    probabilities = belief(2, 8)
    results = [
        audit.run("label_noise", labels=form, probabilities=probabilities, out_of_sample=True)
        for form in (labels, same)
    ]
    assert results[0].rows.equals(results[1].rows)


BROKEN = belief(3, 2)
BROKEN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param(
            {"probabilities": BROKEN}, "NaN or infinity in 1 rows, the first '1'", id="NaN"
        ),
        pytest.param({"probabilities": belief(3, 2) * 3}, "no distribution", id="not normal"),
        pytest.param({"probabilities": belief(3, 2) - 0.05}, "no distribution", id="negative"),
        pytest.param({"probabilities": belief(4, 2)}, "[4, 8]", id="too many rows"),
        pytest.param({"probabilities": belief(3, 2)[:, :7]}, "[3, 7]", id="too few columns"),
        pytest.param({"labels": ["happiness", "bored", "fear"]}, "'bored'", id="unknown label"),
        pytest.param({"labels": [0, 1, 8]}, "8 is no index", id="index too large"),
        pytest.param({"labels": [0.0, 1.0, 2.0]}, "0.0 is no index", id="float labels"),
        pytest.param({"labels": [0, 1]}, "2", id="too few labels"),
        pytest.param({"labels": np.full((3, 8), 0.5)}, "no distribution", id="soft labels"),
        pytest.param({"face_ids": ["a", "b", "a"]}, "repeat", id="a face twice"),
        pytest.param(
            {"votes": pl.DataFrame({"face_id": ["0"]})},
            "missing in the vote table: rater_id",
            id="votes",
        ),
    ],
)
def test_label_noise__rejects_invalid_input(inputs: dict, message: str) -> None:
    given = {"labels": [0, 1, 0], "probabilities": belief(3, 2), "out_of_sample": True, **inputs}
    with pytest.raises(TableError) as caught:
        audit.run("label_noise", **given)
    assert message in str(caught.value)


def test_label_noise__aligns_frames_by_face() -> None:
    ids = ["c", "a", "b"]
    labels = aggregation.soft_labels(
        pl.DataFrame({"face_id": ids, "rater_id": ["r"] * 3, "label": ["fear", "anger", "fear"]})
    )
    order = ["fear", "anger", "fear"]
    probabilities = np.eye(8)[[EXPRESSIONS.index(name) for name in order]]
    result = audit.run(
        "label_noise",
        labels=labels,
        probabilities=probabilities,
        face_ids=ids,
        out_of_sample=True,
    )
    assert result.rows["score"].to_list() == [1, 1, 1]
    with pytest.raises(TableError, match="faces without a row"):
        audit.run(
            "label_noise",
            labels=labels.head(2),
            probabilities=probabilities,
            face_ids=ids,
            out_of_sample=True,
        )


@pytest.mark.parametrize("n", [0, 1, 2, 9, 10, 40])
def test_open_set__few_faces(n: int) -> None:
    rng = np.random.default_rng(0)
    result = audit.run(
        "open_set",
        labels=[EXPRESSIONS[face % 8] for face in range(n)],
        probabilities=belief(n, 8),
        features=rng.normal(size=(n, 256)),
        open_set=np.full((n, 2), 0.01),
    )
    check(result, n)
    assert not result.rows["flag"].any()


def test_open_set__rejects_invalid_input() -> None:
    broken = np.ones((12, 4))
    broken[3, 1] = np.inf
    with pytest.raises(TableError, match="features are not finite"):
        audit.run("open_set", features=broken)
    with pytest.raises(SettingsError, match="none of labels"):
        audit.run("open_set")


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("labels", {}, "label_noise, open_set, near_duplicates, rater_drift"),
        ("open_set", {"chances": 1}, "chances"),
        ("label_noise", {}, "labels"),
        ("near_duplicates", {"radius": 20, "faces": pl.DataFrame()}, "radius=20"),
    ],
)
def test_run__names_unknown_audits_and_inputs(name: str, inputs: dict, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        audit.run(name, **inputs)
    assert message in str(caught.value)
