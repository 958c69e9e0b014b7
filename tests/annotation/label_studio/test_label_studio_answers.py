"""Meaning of a stored result, one row per case; no result crashes."""

from __future__ import annotations

from typing import Any

import pytest

from annotation.label_studio.answers import columns_of, result_of
from warehouse.vocabulary import ACTION_UNITS


def choice(name: object, *values: object) -> dict[str, object]:
    value = {"choices": [*values]}
    return {"from_name": name, "to_name": "crop", "type": "choices", "value": value}


def answer_of(result: object, *, was_cancelled: bool = False) -> dict[str, Any]:
    return columns_of(result, was_cancelled=was_cancelled)["answer"]


NOTE = {"from_name": "note", "type": "textarea", "value": {"text": ["odd light"]}}
FACE = choice("validity", "face")


@pytest.mark.parametrize(
    ("result", "validity", "expressions", "confidence", "note"),
    [
        ([FACE, choice("expression", "anger")], "face", ["anger"], None, None),
        (
            [choice("expression", "fear", "surprise"), FACE, choice("confidence", "sure")],
            "face", ["surprise", "fear"], "sure", None,
        ),
        ([choice("expression", "fear", "fear")], None, ["fear"], None, None),
        ([FACE, choice("expression", "unknown"), NOTE], "face", ["unknown"], None, "odd light"),
        ([choice("validity", "not_a_face")], "not_a_face", ["not_a_face"], None, None),
        ([choice("validity", "unusable")], "unusable", ["unknown"], None, None),
        # The page keeps what was picked before the rater changed the first answer.
        (
            [choice("validity", "not_a_face"), choice("expression", "anger")],
            "not_a_face", ["not_a_face"], None, None,
        ),
    ],
)  # fmt: skip
def test_columns_of__valid_result(result, validity, expressions, confidence, note) -> None:
    assert answer_of(result) == {
        "validity": validity,
        "expressions": expressions,
        "confidence": confidence,
        "valence": None,
        "arousal": None,
        "note": note,
    }


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], "no expression"),
        ([FACE], "no expression"),
        (None, "no answer to any question"),
        ("happiness", "no answer to any question"),
        ({"from_name": "expression"}, "no answer to any question"),
        ([1, 2], "no answer to any question"),
        ([{"value": 1}], "no answer to any question"),
        ([FACE, choice("expression", "glee")], "'glee' is no expression"),
        ([FACE, choice("expression", "not_a_face")], "'not_a_face' is no expression"),
        ([choice("expression", 7)], "no answer to any question"),
        ([choice("expression", {"a": 1})], "no answer to any question"),
        ([choice(["x"], "anger")], "no answer to any question"),
        (
            [FACE, choice("expression", "anger"), choice("mood", "x")],
            "'mood' is no question",
        ),
        ([choice("validity", "maybe"), choice("expression", "anger")], "'maybe' is no validity"),
    ],
)
def test_columns_of__malformed_result_has_a_note(result, message) -> None:
    answer = answer_of(result)
    assert answer["expressions"] == []
    assert answer["note"].startswith("malformed: ")
    assert message in answer["note"]


def test_columns_of__skip_without_answer() -> None:
    assert answer_of([], was_cancelled=True)["note"] is None
    assert answer_of([choice("expression", "fear")], was_cancelled=True)["expressions"] == ["fear"]


def test_columns_of__inverts_result_of() -> None:
    for expressions, validity, confidence in (
        (["neutral"], "face", None),
        (["anger", "disgust"], "face", "likely"),
        ([], "not_a_face", None),
    ):
        result = result_of(expressions, validity=validity, confidence=confidence)
        answer = answer_of(result)
        assert answer["expressions"] == (expressions or ["not_a_face"])
        assert (answer["validity"], answer["confidence"]) == (validity, confidence)


def number(name: str, value: object) -> dict[str, object]:
    return {"from_name": name, "to_name": "crop", "type": "number", "value": {"number": value}}


def test_columns_of__every_question() -> None:
    said = columns_of(
        result_of(
            ["happiness+surprise", "fear"],
            confidence="likely",
            mood={"valence": 0.6, "arousal": -0.3},
            au={12: 0.8, 6: 0.0, 1: 0.1},
            free_label="awe",
        )
    )
    assert said == {
        "answer": {
            "validity": "face",
            "expressions": ["happiness", "surprise", "fear"],
            "confidence": "likely",
            "valence": 0.6,
            "arousal": -0.3,
            "note": None,
        },
        "label_set": "expressions",
        "labels": None,
        "compounds": ["happiness+surprise"],
        "free_label": "awe",
        "au": [
            {"unit": 1, "intensity": 0.1},
            {"unit": 6, "intensity": 0.0},
            {"unit": 12, "intensity": 0.8},
        ],
    }


@pytest.mark.parametrize("level", [0.0, 0.1, 0.25, 0.5, 0.8, 1.0])
def test_columns_of__every_unit_and_intensity(level: float) -> None:
    units = {unit.number: level for unit in ACTION_UNITS}
    coded = columns_of(result_of(["anger"], au=units))["au"]
    assert {entry["unit"]: entry["intensity"] for entry in coded} == units


def test_columns_of__coarse_labels_are_no_expressions() -> None:
    said = columns_of(result_of(["negative", "surprise"]), label_set="coarse")
    assert (said["labels"], said["answer"]["expressions"]) == (["negative", "surprise"], [])
    assert said["answer"]["note"] is None
    columns = columns_of(result_of(["anger"]), label_set="coarse")
    assert columns["labels"] == []
    assert "'anger' is no expression" in columns["answer"]["note"]
    none = columns_of(result_of([], validity="not_a_face"), label_set="coarse")
    assert none["labels"] == ["not_a_face"]


def test_columns_of__unusable_face_has_no_labels() -> None:
    result = [choice("validity", "not_a_face"), number("valence", 50), choice("au12", "C")]
    said = columns_of(result)
    assert said["answer"]["expressions"] == ["not_a_face"]
    assert (said["answer"]["valence"], said["au"]) == (None, None)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (number("valence", 101), "101 is no valence"),
        (number("arousal", "high"), "'high' is no arousal"),
        (number("arousal", True), "True is no arousal"),
        (number("valence", float("nan")), "nan is no valence"),
        (choice("au12", "F"), "'F' is no au12"),
        (choice("au99", "A"), "'au99' is no question"),
        ({"from_name": "valence", "value": {}}, "no answer to any question"),
    ],
)
def test_columns_of__invalid_number_or_unit(part, message) -> None:
    said = columns_of([FACE, choice("expression", "fear"), part])
    assert message in said["answer"]["note"]
    assert (said["answer"]["expressions"], said["answer"]["valence"], said["au"]) == (
        [],
        None,
        None,
    )
