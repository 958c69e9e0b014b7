"""Pages about items: configs, stored results, rows of texts and spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

from annotation.label_studio import item_page
from annotation.label_studio.item_answers import item_columns, item_result, spans_of, texts_of
from warehouse.errors import SettingsError

SEGMENT = {"item_kind": "segment", "item_id": "v-s1", "label_set": "mafw11", "fps": 25.0,
           "duration_s": 4.0}  # fmt: skip
SPAN = {"label": "present", "start_s": 0.4, "end_s": 1.2, "cues": []}


@pytest.mark.parametrize("name", item_page.names())
def test_config__is_understood_by_the_sdk(name: str) -> None:
    page = item_page.load(name)
    controls = parse_config(item_page.item_config(page))
    asked = {question.name for question in page.questions}
    assert asked <= {control.split(".")[0] for control in controls}
    assert len(item_page.item_fingerprint(page)) == 12


@pytest.mark.parametrize(
    ("answers", "data"),
    [
        ({"label": ["fear", "anger"]}, SEGMENT),
        ({"label": ["unknown"], "words": ["uneasy", "on edge"]}, SEGMENT),
        ({"rationale": "Brows up,\nlips apart & <pale>"}, SEGMENT),
        ({"valence": -0.5, "sure": 4.0}, SEGMENT),
        ({"wheel": ["joy/serenity"]}, {**SEGMENT, "picture": "p.jpg"}),
        ({"spans": [{**SPAN, "cues": ["voice"]}]}, SEGMENT),
        ({"spans": [SPAN]}, {**SEGMENT, "sound": "s.flac"}),
        ({"turns": [{"label": "anger", "turn": 2, "start": 0, "end": 9}]},
         {**SEGMENT, "item_kind": "dialogue"}),
    ],
)  # fmt: skip
def test_answers__come_back_as_given(answers: dict[str, Any], data: dict[str, Any]) -> None:
    columns = item_columns(item_result(answers, data), data)
    assert json.loads(columns["answers"]) == answers
    assert columns["answer"]["note"] is None
    assert (columns["item_kind"], columns["item_id"]) == (data["item_kind"], "v-s1")
    assert columns["labels"] == (sorted(answers["label"]) if "label" in answers else None)


def part(name: str, kind: str, **value: Any) -> dict[str, Any]:
    return {"from_name": name, "type": kind, "id": "a", "value": value}


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (part("label", "choices", choices=["bored"]), "'bored' is no answer of mafw11"),
        (part("valence", "number", number="high"), "a part is no answer"),
        (part("x", "brush"), "'brush' is no kind of answer"),
        (part("spans", "labels", start=2, end=2, labels=["present"]), "a span from 2 to 2 s"),
        (part("spans", "timelinelabels", ranges=[], timelinelabels=["x"]), "a part is no answer"),
        (part("spans.cues", "choices", choices=["voice"]), "cues without a span"),
        (None, "a part is no answer"),
        ("\ud800", "a part is no answer"),
    ],
)
def test_answers__that_do_not_fit_are_noted_and_no_label(given: Any, note: str) -> None:
    columns = item_columns([given], SEGMENT)
    assert note in columns["answer"]["note"]
    assert columns["labels"] is None


def test_answers__span_is_cut_to_its_item() -> None:
    given = part("spans", "labels", start=-1, end=99, labels=["present"])
    (span,) = json.loads(item_columns([given], SEGMENT)["answers"])["spans"]
    assert (span["start_s"], span["end_s"]) == (0.0, 4.0)


def test_rows__texts_and_spans_of_a_vote() -> None:
    answers = {
        "words": ["Uneasy ", "on edge"], "rationale": "Brows", "label": ["fear"],
        "spans": [{"label": "present", "start_s": 0.4, "end_s": 1.2, "cues": ["voice"]}],
    }  # fmt: skip
    vote = {"item_kind": "segment", "item_id": "v-s1", "rater_id": "person-1",
            "rater_kind": "person", "answers": json.dumps(answers)}  # fmt: skip
    texts = list(texts_of(vote))
    assert [(row["kind"], row["text"], row["words"]) for row in texts] == [
        ("rationale", "Brows", None), ("open_words", None, ["uneasy", "on edge"])
    ]  # fmt: skip
    (span,) = spans_of(vote)
    assert (span["label"], span["start_s"], span["cues"]) == ("present", 0.4, ["voice"])


ASKS = 'name = "a"\nitem_kind = "clip"\n[[questions]]\nname="b"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "cannot be read"),
        ('name = "a"\nitem_kind = "smell"', "asks about 'smell'"),
        ('name = "a"\nitem_kind = "clip"', "asks nothing"),
        (ASKS + 'kind="dance"\ntitle="?"', "asks a 'dance'"),
        (ASKS + 'kind="turns"\ntitle="?"', "only a dialogue has"),
        (ASKS + 'kind="text"\ntitle="?"\nlost=1', "cannot be read"),
    ],
)  # fmt: skip
def test_load__names_what_is_unsound(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "page.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="A page is unsound") as caught:
        item_page.load(str(path))
    assert message in str(caught.value)


def test_span_sets__name_the_set_that_the_question_asks() -> None:
    sets = item_page.span_sets(["utterance"], item_kind="segment", label_set="mafw11")
    assert sets == {"spans": "ambivalence"}
    assert item_page.span_sets(["utterance"], item_kind="clip", label_set="mafw11") == {}
    vote = {"item_kind": "segment", "item_id": "v-s1", "rater_id": "r", "rater_kind": "person",
            "answers": json.dumps({"spans": [SPAN]})}  # fmt: skip
    assert [row["label_set"] for row in spans_of(vote, sets)] == ["ambivalence"]


@pytest.mark.parametrize(
    ("rater_kind", "author"),
    [("person", "person"), ("self", "person"), ("machine", "machine"), ("simulated", "machine"),
     ("source", "source")],
)  # fmt: skip
def test_texts__a_simulated_rater_is_no_person(rater_kind: str, author: str) -> None:
    vote = {"item_kind": "segment", "item_id": "v-s1", "rater_id": "r", "rater_kind": rater_kind,
            "answers": json.dumps({"rationale": "brows"})}  # fmt: skip
    assert [row["author_kind"] for row in texts_of(vote)] == [author]
