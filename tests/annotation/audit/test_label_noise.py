"""Label noise on forty faces whose wrong labels are known."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest

from annotation import aggregation, audit
from annotation.audit import noise_matrix
from annotation.audit.cross_validation import cross_validated_probabilities
from warehouse.errors import SettingsError
from warehouse.ids import pseudonym
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

N = 40
SWAPPED = {3: "fear", 11: "anger", 20: "contempt", 33: "surprise"}
TRUTH = [EXPRESSIONS[face % 3] for face in range(N)]
LABELS = [SWAPPED.get(face, TRUTH[face]) for face in range(N)]


def belief(of: list[str], sure: float = 0.86) -> np.ndarray:
    rows = np.full((len(of), 8), (1 - sure) / 7)
    rows[np.arange(len(of)), [EXPRESSIONS.index(name) for name in of]] = sure
    return rows


def votes(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=["face_id", "rater_id", "label"], orient="row")


def one(result: audit.AuditResult, face_id: str) -> dict:
    return result.rows.row(by_predicate=pl.col("face_id") == face_id, named=True)


def test_label_noise__flags_planted_errors() -> None:
    ids = [f"f{face:02d}" for face in range(N)]
    result = audit.run(
        "label_noise",
        labels=LABELS,
        probabilities=belief(TRUTH),
        face_ids=ids,
        out_of_sample=True,
    )
    flagged = result.rows.filter("flag")
    assert flagged["face_id"].to_list() == [ids[face] for face in SWAPPED]
    assert flagged["detail"].to_list() == [TRUTH[face] for face in SWAPPED]
    assert result.rows.filter(~pl.col("flag"))["detail"].null_count() == N - len(SWAPPED)
    # Margin of a wrong label: (0.02 - 0.86 + 1) / 2; of a right one (0.86 - 0.02 + 1) / 2.
    assert flagged["score"].to_list() == pytest.approx([0.08] * 4)
    assert result.score == pytest.approx((4 * 0.08 + 36 * 0.92) / N)
    assert result.rows.schema == TABLES["audits"].schema
    assert result.rows["audit"].unique().to_list() == ["label_noise"]
    assert result.statistics["variant"] == "margin"
    assert result.statistics["counted"] == len(SWAPPED)
    assert result.statistics["thresholds"]["fear"] == pytest.approx(0.02)


def test_label_noise__plurality_and_ties() -> None:
    labels = aggregation.soft_labels(
        votes(
            ("clear", "a", "anger"), ("clear", "b", "anger"), ("clear", "c", "fear"),
            ("tie", "a", "anger"), ("tie", "b", "fear"),
            ("open", "a", "unknown"),
        )
    )  # fmt: skip
    probabilities = pl.DataFrame({"face_id": ["tie", "clear", "open"]}).with_columns(
        expression=pl.Series(
            [
                [0.1, 0, 0, 0, 0.6, 0, 0.3, 0],
                [0.5, 0, 0, 0, 0.3, 0, 0.2, 0],
                [0.9, 0.1, 0, 0, 0, 0, 0, 0],
            ],
            dtype=TABLES["ratings"].schema["expression"],
        )
    )
    result = audit.run(
        "label_noise", labels=labels, probabilities=probabilities, out_of_sample=True
    )
    assert one(result, "clear")["score"] == pytest.approx((0.3 - 0.5 + 1) / 2)
    assert one(result, "clear")["detail"] == "neutral"
    tie = ((0.6 - 0.3 + 1) / 2 + (0.3 - 0.6 + 1) / 2) / 2
    assert (one(result, "tie")["score"], one(result, "tie")["flag"]) == (pytest.approx(tie), False)
    assert one(result, "tie")["detail"] is None
    assert (one(result, "open")["score"], one(result, "open")["flag"]) == (None, False)
    assert (result.statistics["tied"], result.statistics["without_label"]) == (1, 1)


def test_label_noise__crowdlab_weighs_raters() -> None:
    rows, faces = [], [f"f{face:02d}" for face in range(30)]
    for face, name in enumerate(faces):
        answer = EXPRESSIONS[face % 3]
        rows += [(name, "good", answer), (name, "fine", answer), (name, "same", "neutral")]
    rows.append(("lonely", "same", "neutral"))
    table = votes(*rows)
    truth = [EXPRESSIONS[face % 3] for face in range(30)] + ["happiness"]
    result = audit.run(
        "label_noise",
        labels=aggregation.soft_labels(table),
        probabilities=belief(truth),
        votes=table,
        out_of_sample=True,
    )
    assert result.statistics["variant"] == "crowdlab"
    weight = result.statistics["rater_weight"]
    assert weight["good"] == weight["fine"] > weight["same"]
    flagged = result.rows.filter("flag")
    assert flagged.select("face_id", "detail").rows() == [("lonely", "happiness")]
    assert result.rows.sort("score")["face_id"][0] == "lonely"


def test_label_noise__does_not_depend_on_rater_ids() -> None:
    # Another salt gives other pseudonyms, in another order.
    rng = np.random.default_rng(0)
    faces = [f"f{face:02d}" for face in range(60)]
    truth = [EXPRESSIONS[face % 5] for face in range(60)]
    said = [
        (face, rater, truth[row] if rng.random() < 0.4 + 0.07 * rater else EXPRESSIONS[7 - rater])
        for row, face in enumerate(faces)
        for rater in range(8)
        if rng.random() < 0.6
    ]
    found, worth = [], []
    for salt in ("one", "two", "three", "four"):
        names = [pseudonym("person", salt, f"{rater}@example.org") for rater in range(8)]
        table = votes(*((face, names[rater], label) for face, rater, label in said))
        result = audit.run(
            "label_noise",
            labels=aggregation.soft_labels(table),
            probabilities=belief(truth, sure=0.613),
            votes=table.sort("rater_id", "face_id"),
            out_of_sample=True,
        )
        assert result.statistics["variant"] == "crowdlab"
        buffer = io.BytesIO()
        result.rows.write_parquet(buffer)
        found.append(buffer.getvalue())
        worth.append([result.statistics["rater_weight"][name] for name in names])
    assert found == found[:1] * 4
    assert worth == worth[:1] * 4


def test_label_noise__crowdlab_ignores_open_set_and_several_answers() -> None:
    table = votes(
        ("f", "a", "anger"), ("f", "b", "anger"), ("f", "c", "unknown"),
        ("g", "a", "fear"), ("g", "a", "sadness"), ("g", "c", "not_a_face"),
        ("h", "b", "fear"), ("h", "a", "fear"),
    )  # fmt: skip
    result = audit.run(
        "label_noise",
        labels=aggregation.soft_labels(table),
        probabilities=belief(["anger", "fear", "fear"]),
        votes=table,
        out_of_sample=True,
    )
    assert result.statistics["variant"] == "crowdlab"
    # g has no single closed answer: the machine's probabilities of fear and sadness.
    assert one(result, "g")["score"] == pytest.approx((0.86 + 0.02) / 2)
    assert not result.rows["flag"].any()


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(votes(("f0", "a", "neutral"), ("f1", "a", "happiness")), id="one rater"),
        pytest.param(votes(("f0", "a", "neutral"), ("f1", "b", "happiness")), id="never shared"),
        pytest.param(votes(), id="no votes"),
        pytest.param(votes(("f0", "a", "unknown"), ("f0", "b", "unknown")), id="open only"),
        pytest.param(votes(("other", "a", "fear"), ("other", "b", "fear")), id="other faces"),
    ],
)
def test_label_noise__margin_without_shared_faces(table: pl.DataFrame) -> None:
    result = audit.run(
        "label_noise",
        labels=["neutral", "happiness"],
        probabilities=belief(["neutral", "happiness"]),
        face_ids=["f0", "f1"],
        votes=table,
        out_of_sample=True,
    )
    assert result.statistics["variant"] == "margin"
    assert result.rows["score"].to_list() == pytest.approx([0.92, 0.92])


def test_label_noise__rejects_in_sample_probabilities() -> None:
    probabilities = belief(LABELS)
    for given in ({"probabilities": probabilities}, {}):
        with pytest.raises(SettingsError, match="out_of_sample=True"):
            audit.run("label_noise", labels=LABELS, **given)
    features = np.random.default_rng(0).normal(size=(N, 4))
    with pytest.warns(UserWarning, match="ignores the given probabilities"):
        beside = audit.run(
            "label_noise", labels=LABELS, probabilities=probabilities, features=features
        )
    alone = audit.run("label_noise", labels=LABELS, features=features)
    assert beside.rows.equals(alone.rows)
    assert alone.statistics["probabilities"] == "cross-fitted on features"


def test_label_noise__cross_validation_finds_planted_errors() -> None:
    rng = np.random.default_rng(0)
    centre = np.eye(3)[[EXPRESSIONS.index(name) for name in TRUTH]]
    features = np.hstack([3 * centre, np.zeros((N, 13))]) + rng.normal(size=(N, 16)) * 0.3
    result = audit.run("label_noise", labels=LABELS, features=features)
    worst = result.rows.sort("score").head(4)
    assert sorted(int(face) for face in worst["face_id"]) == sorted(SWAPPED)
    assert worst["detail"].to_list() == [TRUTH[int(face)] for face in worst["face_id"]]
    again = audit.run("label_noise", labels=LABELS, features=features)
    assert again.rows.equals(result.rows)


def test_label_noise__class_whose_labels_are_wrong() -> None:
    rng = np.random.default_rng(0)
    shown = np.repeat([0, 1, 2, 3], [150, 150, 150, 12])
    features = 2.5 * np.eye(4)[shown] + rng.normal(size=(462, 4))
    label = shown.copy()
    wrong = rng.choice(450, 60, replace=False)
    label[wrong] = EXPRESSIONS.index("fear")
    result = audit.run("label_noise", labels=label, features=features)
    whole = audit.run("label_noise", labels=label, features=features, max_class_share=1.0)
    rows, all_rows = (one.rows.sort(pl.col("face_id").cast(pl.Int64)) for one in (result, whole))
    score, flag = rows["score"].to_numpy(), rows["flag"].to_numpy()
    matrix = result.statistics["noise_matrix"]
    assert matrix["fear"]["fear"] < 0.5
    assert min(matrix[name][name] for name in EXPRESSIONS[:3]) > 0.7
    assert score[wrong].max() < np.median(score[shown == 3])
    # All fear labels are wrong. The worst 18 of 60 are flagged, or nearly all without the limit.
    assert flag[wrong].sum() == 18
    assert score[wrong][flag[wrong]].max() <= score[wrong][~flag[wrong]].min()
    assert all_rows["flag"].to_numpy()[wrong].mean() > 0.9
    assert all_rows["score"].to_list() == score.tolist()


def test_noise_matrix__by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Class 0: one of four labels is confirmed. Class 1: both are. Nothing is labelled 2.
    belief = np.array([[0.8, 0.1, 0.1]] + [[0.1, 0.8, 0.1]] * 3 + [[0.1, 0.8, 0.1]] * 2)
    label = np.array([0, 0, 0, 0, 1, 1])
    monkeypatch.setattr(noise_matrix, "PRIOR_FACES", 0.0)
    with np.errstate(invalid="ignore"):
        matrix = noise_matrix.estimate(label, belief)
    assert matrix[:2].tolist() == [[0.25, 0.75, 0], [0, 1, 0]]
    # Six prior faces of which half are confirmed, as half of all are; one of the others each.
    monkeypatch.setattr(noise_matrix, "PRIOR_FACES", 6.0)
    matrix = noise_matrix.estimate(label, belief)
    assert matrix.sum(axis=1) == pytest.approx([1, 1, 1])
    assert np.diag(matrix) == pytest.approx([(1 + 3) / 10, (2 + 3) / 8, 0.5])


def test_noise_matrix__right_by_hand() -> None:
    matrix = np.array([[0.25, 0.75], [0.1, 0.9]])
    found = noise_matrix.right(np.array([[0.8, 0.2]]), matrix)
    odds = np.array([0.25 / 0.75 * np.sqrt(0.8 / 0.2), 0.9 / 0.1 * np.sqrt(0.2 / 0.8)])
    assert found[0] == pytest.approx(odds / (1 + odds))


def test_cross_validation__keeps_groups_together() -> None:
    # Pairs share features and a random label: only a leak can predict it.
    rng = np.random.default_rng(0)
    label = np.repeat(rng.integers(0, 2, 40), 2)
    features = np.repeat(rng.normal(size=(40, 200)), 2, axis=0)
    soft = np.eye(8)[label]

    def right(groups: list[str] | None) -> float:
        found = cross_validated_probabilities(soft, features, groups=groups)
        return float((found.argmax(axis=1) == label).mean())

    assert right(None) > 0.8
    assert right([f"pair{face // 2}" for face in range(80)]) < 0.65


def test_label_noise__rejects_raters_trained_on_face_or_group() -> None:
    ids = [f"f{face:02d}" for face in range(N)]
    fold = [f"fold{face % 2}" for face in range(N)]
    given = {
        "labels": LABELS,
        "face_ids": ids,
        "probabilities": pl.DataFrame(
            {"face_id": ids, "rater_id": fold, "expression": belief(TRUTH).tolist()}
        ),
    }
    trained_on = {
        f"fold{own}": {face for face, one in zip(ids, fold, strict=True) if one != f"fold{own}"}
        for own in (0, 1)
    }
    valid = audit.run("label_noise", **given, trained_on=trained_on)
    assert valid.rows.filter("flag").height == len(SWAPPED)
    seen = {**trained_on, "fold0": trained_on["fold0"] | {"f04"}}
    with pytest.raises(SettingsError, match=r"1 faces .* 'f04' by fold0"):
        audit.run("label_noise", **given, trained_on=seen)
    # f04 and f05 are one group in different folds.
    twins = [name if name not in ("f04", "f05") else "pair" for name in ids]
    with pytest.raises(SettingsError, match=r"2 faces rated"):
        audit.run("label_noise", **given, trained_on=trained_on, groups=twins)
    with pytest.raises(SettingsError, match="nothing about fold1"):
        audit.run("label_noise", **given, trained_on={"fold0": trained_on["fold0"]})
    anonymous = {**given, "probabilities": given["probabilities"].drop("rater_id")}
    with pytest.raises(SettingsError, match="no rater_id"):
        audit.run("label_noise", **anonymous, trained_on=trained_on)
    both = {
        **given,
        "probabilities": given["probabilities"].with_columns(rater_id=pl.lit("fold0+fold1")),
    }
    with pytest.raises(SettingsError, match=rf"{N} faces rated"):
        audit.run("label_noise", **both, trained_on=trained_on)
    assert audit.run("label_noise", **both, trained_on={"fold0": (), "fold1": ()}).rows.height == N


def test_label_noise__by_share_accepts_second_expression() -> None:
    soft = np.zeros((3, 8))
    soft[0, [4, 5]] = (0.55, 0.45)
    soft[1, 4] = 1.0
    soft[2, [0, 1]] = (0.6, 0.4)
    given = {"labels": soft, "probabilities": belief(["disgust"] * 3, 0.65), "out_of_sample": True}
    plain = audit.run("label_noise", **given)
    shared = audit.run("label_noise", by_share=True, **given)
    assert plain.rows["flag"].to_list() == [True, True, True]
    assert shared.rows["flag"].to_list() == [False, True, True]
    wrong, right = (0.05 - 0.65 + 1) / 2, (0.65 - 0.05 + 1) / 2
    assert shared.rows["score"][0] == pytest.approx(0.55 * wrong + 0.45 * right)
