"""The labeling page is valid, asks in the vocabulary's words, and is linted by us."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from annotation.studio import config, project
from annotation.studio.answers import result_of
from annotation.studio.client import Client
from tests.annotation.studio.conftest import Studio
from warehouse.vocabulary import ANSWERS, EXPRESSIONS


def choices(name: str) -> list[tuple[str, str]]:
    root = ElementTree.fromstring(config.labeling_config())
    (control,) = [tag for tag in root.iter("Choices") if tag.get("name") == name]
    return [(choice.get("alias", ""), choice.get("hotkey", "")) for choice in control]


def test_keys_one_to_eight_are_the_expressions_in_order() -> None:
    assert choices("expression") == [
        *((name, str(key)) for key, name in enumerate(EXPRESSIONS, start=1)),
        ("unknown", "9"),
    ]


def test_every_answer_can_be_given() -> None:
    aliases = {alias for name in ("expression", "validity") for alias, _ in choices(name)}
    assert set(ANSWERS) <= aliases


def test_the_sdk_accepts_the_config_and_every_answer() -> None:
    from label_studio_sdk.label_interface import LabelInterface

    page = LabelInterface(config.labeling_config())
    page.validate()
    for result in (
        *(result_of([name]) for name in (*EXPRESSIONS, "unknown")),
        result_of(["fear", "surprise"], confidence="guess"),
        result_of([], validity="not_a_face"),
        result_of([], validity="unusable"),
    ):
        assert page.validate_prediction({"result": result}, return_errors=True) == []


@pytest.mark.studio
def test_the_server_accepts_the_config(client: Client) -> None:
    assert (
        client.write("POST", "/api/projects/validate/", {"label_config": config.labeling_config()})
        is None
    )


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ('<View><Image name="a" value="$x"/><Text name="b"/></View>', "unknown tag Text"),
        ('<View><Image name="a"/><Image name="a"/></View>', "the name a is used twice"),
        (
            '<View><Image name="a"/><Choices name="c" toName="a"><Choice alias="x" hotkey="1"/>'
            '<Choice alias="y" hotkey="1"/></Choices></View>',
            "the key 1 is used twice",
        ),
        (
            '<View><Image name="a"/><Choices name="c" toName="a"><Choice alias="x" hotkey="v"/>'
            "</Choices></View>",
            "the key v belongs to the viewer",
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
            "c points at gone, which is not there",
        ),
    ],
)
def test_lint_finds(broken: str, fault: str) -> None:
    assert config.lint(broken) == [fault]


def test_our_config_has_no_fault_and_a_stable_name() -> None:
    text = config.labeling_config()
    assert config.lint(text) == []
    assert config.fingerprint(text) == config.fingerprint(config.labeling_config())
    assert config.fingerprint(text) != config.fingerprint(text + " ")


@pytest.mark.studio
def test_a_project_is_found_again_and_set_up_for_blind_votes(
    studio: Studio, client: Client
) -> None:
    def ensure(wanted_votes: int, owner: str = "one") -> project.Project:
        return project.ensure_project(
            client,
            title="the same title",
            wanted_votes=wanted_votes,
            media_dir=studio.home.media,
            owner=owner,
        )

    first = ensure(3)
    assert ensure(5) == first
    assert ensure(5, owner="two").id != first.id
    row = client.read(f"/api/projects/{first.id}/")
    assert row["maximum_annotations"] == 5
    assert row["show_collab_predictions"] is False
    assert row["sampling"] == "Uniform sampling"
    assert "cannot tell" in row["expert_instruction"]
    storages = client.read("/api/storages/localfiles/", project=first.id)
    assert sorted(item["title"] for item in storages) == ["serve contexts", "serve crops"]
    assert project.last_change(client, first.id) is None


@pytest.mark.studio
def test_a_new_project_does_not_take_a_number_that_tables_know(
    studio: Studio, client: Client
) -> None:
    highest = max(row["id"] for row in client.read("/api/projects/", page_size=1000)["results"])
    taken = range(highest + 3)
    made = project.ensure_project(
        client, title="numbers", wanted_votes=1, media_dir=studio.home.media, avoid=taken
    )
    assert made.id not in taken
