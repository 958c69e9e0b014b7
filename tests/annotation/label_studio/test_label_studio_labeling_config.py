"""The labeling config is valid, complete and checked by our lint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from annotation.label_studio import labeling_config, projects
from annotation.label_studio.answers import columns_of, result_of
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.guide import FOLDER, instruction, write_drawings
from annotation.label_studio.labeling_config import Page, page_fingerprint
from tests.annotation.label_studio.conftest import Studio, api
from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, EXPRESSIONS


def choices(name: str) -> list[tuple[str, str]]:
    root = ElementTree.fromstring(labeling_config.labeling_config())
    (control,) = [tag for tag in root.iter("Choices") if tag.get("name") == name]
    return [(choice.get("alias", ""), choice.get("hotkey", "")) for choice in control]


def test_config__keys_one_to_eight_are_expressions() -> None:
    assert choices("expression") == [
        *((name, str(key)) for key, name in enumerate(EXPRESSIONS, start=1)),
        ("unknown", "9"),
    ]


def test_config__every_answer_has_a_choice() -> None:
    aliases = {alias for name in ("expression", "validity") for alias, _ in choices(name)}
    assert set(ANSWERS) <= aliases


def test_config__accepted_by_the_sdk() -> None:
    from label_studio_sdk.label_interface import LabelInterface

    page = LabelInterface(labeling_config.labeling_config())
    page.validate()
    for result in (
        *(result_of([name]) for name in (*EXPRESSIONS, "unknown")),
        result_of(["fear", "surprise"], confidence="guess"),
        result_of([], validity="not_a_face"),
        result_of([], validity="unusable"),
    ):
        assert page.validate_prediction({"result": result}, return_errors=True) == []


@pytest.mark.studio
def test_config__accepted_by_the_server(client: LabelStudioClient) -> None:
    assert (
        api(
            client,
            "POST",
            "/api/projects/validate/",
            {"label_config": labeling_config.labeling_config()},
        )
        is None
    )


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ('<View><Image name="a" value="$x"/><Brush name="b"/></View>', "unknown tag Brush"),
        ('<View><Image name="a"/><Image name="a"/></View>', "the name a occurs twice"),
        (
            '<View><Image name="a"/><Choices name="c" toName="a"><Choice alias="x" hotkey="1"/>'
            '<Choice alias="y" hotkey="1"/></Choices></View>',
            "the key 1 occurs twice",
        ),
        (
            '<View><Image name="a"/><Choices name="c" toName="a"><Choice alias="x" hotkey="v"/>'
            "</Choices></View>",
            "the key v is reserved by the viewer",
        ),
        (
            '<View><Image name="a"/><Choices name="c" toName="a"><Choice alias="x"/>'
            '<Choice alias="x"/></Choices></View>',
            "c offers 'x' twice",
        ),
        (
            '<View><Image name="a"/><Choices name="c" toName="a"><Choice value="x"/></Choices>'
            "</View>",
            "c has a choice without alias",
        ),
        (
            '<View><Choices name="c" toName="gone"><Choice alias="x"/></Choices></View>',
            "c points at gone, which does not exist",
        ),
    ],
)
def test_lint__finds_each_fault(broken: str, fault: str) -> None:
    assert labeling_config.lint(broken) == [fault]


def test_lint__default_config_has_no_fault() -> None:
    text = labeling_config.labeling_config()
    assert labeling_config.lint(text) == []
    assert labeling_config.fingerprint(text) == labeling_config.fingerprint(
        labeling_config.labeling_config()
    )
    assert labeling_config.fingerprint(text) != labeling_config.fingerprint(text + " ")


@pytest.mark.studio
def test_ensure_project__finds_and_hides_votes(studio: Studio, client: LabelStudioClient) -> None:
    def ensure(wanted_votes: int, owner: str = "one") -> projects.Project:
        return projects.ensure_project(
            client,
            title="the same title",
            wanted_votes=wanted_votes,
            media_dir=studio.home.media,
            owner=owner,
        )

    first = ensure(3)
    assert ensure(5) == first
    assert ensure(5, owner="two").id != first.id
    row = api(client, "GET", f"/api/projects/{first.id}/")
    assert row["maximum_annotations"] == 5
    assert row["show_collab_predictions"] is False
    assert row["sampling"] == "Uniform sampling"
    assert "cannot tell" in row["expert_instruction"]
    storages = api(client, "GET", "/api/storages/localfiles/", project=first.id)
    assert sorted(item["title"] for item in storages) == [
        "serve contexts",
        "serve crops",
        "serve guide",
        "serve marked",
    ]
    assert client.last_change(first.id) is None


@pytest.mark.studio
def test_ensure_project__skips_known_numbers(studio: Studio, client: LabelStudioClient) -> None:
    highest = max(
        row["id"] for row in api(client, "GET", "/api/projects/", page_size=1000)["results"]
    )
    taken = range(highest + 3)
    made = projects.ensure_project(
        client, title="numbers", wanted_votes=1, media_dir=studio.home.media, avoid=taken
    )
    assert made.id not in taken


EVERYTHING = Page(
    mood=True,
    units=tuple(unit.number for unit in ACTION_UNITS),
    compounds=True,
    free_label=True,
    clip=True,
)
PAGES = (Page(), EVERYTHING, Page(label_set="coarse"), Page(predictions=True))


@pytest.mark.parametrize("page", PAGES)
def test_config__every_page_is_valid(page: Page) -> None:
    from label_studio_sdk.label_interface import LabelInterface

    text = labeling_config.labeling_config(page)
    assert labeling_config.lint(text) == []
    interface = LabelInterface(text)
    interface.validate()
    said: dict[str, Any] = {}
    if page.mood:
        said = {"mood": {"valence": -1.0, "arousal": 0.5}, "au": {12: 0.8, 4: 0.0}}
        said["free_label"] = "awe"
    for option in page.labels:
        result = result_of([option.alias], **said)
        assert interface.validate_prediction({"result": result}, return_errors=True) == []
        back = columns_of(result, label_set=page.label_set)
        assert back["answer"]["note"] is None


def test_page_fingerprint__distinct_and_stable() -> None:
    marks = [page_fingerprint(page) for page in PAGES]
    assert len(set(marks)) == len(PAGES)
    assert marks == [page_fingerprint(page) for page in PAGES]


@pytest.mark.studio
@pytest.mark.parametrize("page", PAGES)
def test_config__every_page_is_accepted_by_the_server(
    client: LabelStudioClient, page: Page
) -> None:
    body = {"label_config": labeling_config.labeling_config(page)}
    assert api(client, "POST", "/api/projects/validate/", body) is None


@pytest.mark.parametrize(
    "given", [{"label_set": "emotions"}, {"units": (12, 99)}], ids=["label set", "unit"]
)
def test_page__rejects_unknown_questions(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Page(**given)


@pytest.mark.parametrize("page", PAGES)
def test_guide__explains_every_question(page: Page) -> None:
    text = instruction(page)
    for option in page.labels:
        if "+" not in option.alias:
            assert f"({option.key})" in text, option.alias
    assert ("Happily surprised" in text) == page.compounds
    assert ("sliders" in text, "Action units" in text) == (page.mood, bool(page.units))
    assert ("machine's guess" in text) == page.predictions
    # The server keeps these; anything else would show as it is.
    assert set(re.findall(r"</?(\w+)", text)) == {"b", "br", "table", "tr", "td", "img"}
    drawn = {option.alias for option in page.labels} & set(EXPRESSIONS)
    assert set(re.findall(r"guide/(\w+)\.svg", text)) == drawn


def test_guide__pictures_differ_by_expression(tmp_path: Path) -> None:
    write_drawings(tmp_path)
    found = {path.stem: path.read_text() for path in (tmp_path / FOLDER).iterdir()}
    assert set(found) == set(EXPRESSIONS)
    assert len(set(found.values())) == len(EXPRESSIONS)
    assert {ElementTree.fromstring(text).get("viewBox") for text in found.values()} == {
        "0 0 100 100"
    }


@pytest.mark.parametrize("number", [1, 2, 17])
def test_read_tag__from_a_description(number: int) -> None:
    mark = projects._Tag(page_fingerprint(Page()), "0" * 8, number)
    assert projects._read_tag(f"Facial expressions. {mark} and what a user added") == mark
    assert projects._read_tag("risorius is nice [risorius]") is None
