"""What a stored result means, one row per case, and nothing makes it crash."""

from __future__ import annotations

import pytest

from annotation.studio.answers import answer_of, result_of


def choice(name: object, *values: object) -> dict[str, object]:
    value = {"choices": [*values]}
    return {"from_name": name, "to_name": "crop", "type": "choices", "value": value}


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
def test_a_result_becomes_an_answer(result, validity, expressions, confidence, note) -> None:
    assert answer_of(result) == {
        "validity": validity,
        "expressions": expressions,
        "confidence": confidence,
        "valence": None,
        "arousal": None,
        "note": note,
    }


@pytest.mark.parametrize(
    ("result", "told"),
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
def test_a_malformed_result_is_no_vote_and_says_why(result, told) -> None:
    answer = answer_of(result)
    assert answer["expressions"] == []
    assert answer["note"].startswith("malformed: ")
    assert told in answer["note"]


def test_a_skip_needs_no_answer() -> None:
    assert answer_of([], was_cancelled=True)["note"] is None
    assert answer_of([choice("expression", "fear")], was_cancelled=True)["expressions"] == ["fear"]


def test_there_and_back() -> None:
    for expressions, validity, confidence in (
        (["neutral"], "face", None),
        (["anger", "disgust"], "face", "likely"),
        ([], "not_a_face", None),
    ):
        result = result_of(expressions, validity=validity, confidence=confidence)
        answer = answer_of(result)
        assert answer["expressions"] == (expressions or ["not_a_face"])
        assert (answer["validity"], answer["confidence"]) == (validity, confidence)
