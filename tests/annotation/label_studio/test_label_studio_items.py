"""Items other than faces: tasks, votes, and what becomes of votes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from annotation.label_studio import item_page, item_sync, sync
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.item_answers import item_result
from annotation.label_studio.users import Account
from pipeline import erasure
from pipeline.settings import Settings
from tests.annotation.label_studio.conftest import Studio, api
from warehouse.privacy.data_subject import DataSubject
from warehouse.storage import atomic, tables, views
from warehouse.storage.schema import TABLES

pytestmark = pytest.mark.studio

SEGMENTS = ["v-s1", "v-s2", "v-s3"]
PICTURES = ("p", "q", "lost")

Answers = dict[str, Any]


def one_label(name: str) -> Answers:
    return {"label": [name]}


def one_turn(name: str) -> Answers:
    return {"turns": [{"label": name, "turn": 0, "start": 0, "end": 4}]}


KINDS: dict[str, tuple[list[str], Callable[[str], Answers]]] = {
    "utterance": (["v-s2", "v-s3"], one_label),
    "clip": (["v-0-c", "v-1-c"], one_label),
    "dialogue": (["v-d-d", "v-d-e"], one_turn),
    "video": (["v", "w"], one_label),
    "picture": (["p", "q"], lambda name: {f"label.{name}": ["2"]}),
}
"""Page to two of its items, and the answers that say one emotion."""


class Office:
    """A home with segments, clips, pictures and videos, whose server runs."""

    def __init__(self, running: Studio, title: str) -> None:
        self.home = running.home
        self.settings = Settings(home=self.home.root, project=title, wanted_votes=2)
        self.workspace = self.settings.label_studio
        videos = [{"video_id": name, "batch": "b", "fps": 25.0, "verdict": "kept",
                   "duration_s": 0.0 if name in PICTURES else 12.0}
                  for name in ("v", "w", *PICTURES)]  # fmt: skip
        self.write("videos", videos, batch="b")
        clips = [{"clip_id": f"v-{number}-c", "track_id": f"v-{number}", "video_id": "v",
                  "batch": "b", "start_s": 0.0, "end_s": 1.0, "verdict": "kept"}
                 for number in range(2)]  # fmt: skip
        self.write("clips", clips, batch="b")
        for key in ("clips/v-0.webm", "clips/v-1.webm", "videos/v.mp4", "videos/w.mp4",
                    "pictures/p.jpg", "pictures/q.jpg"):  # fmt: skip
            atomic.write_bytes(self.home.media / key, b"0")
        rows = []
        for number, segment in enumerate(SEGMENTS):
            for suffix in ("mp4", "flac"):
                atomic.write_bytes(self.home.media / "segments" / f"{segment}.{suffix}", b"0")
            rows.append(
                {"segment_id": segment, "video_id": "v", "batch": "b", "start_s": 4.0 * number,
                 "end_s": 4.0 * number + 4, "transcript": f"line {number}",
                 "dialogue_id": "dde"[number], "speaker": "Ann",
                 "video": f"segments/{segment}.mp4",
                 "sound": f"segments/{segment}.flac" if number else None, "verdict": "kept"}
            )  # fmt: skip
        self.write("segments", rows, batch="b")

    def write(self, name: str, rows: list[dict[str, Any]], batch: str | None = None) -> None:
        frame = pl.DataFrame(rows, schema=TABLES[name].schema)
        tables.write(self.home, name, frame, part="v", batch=batch)

    def pull(self) -> int:
        found = [pulled for _, pulled in sync.pull_votes(self.workspace, now=datetime.now(UTC))]
        assert all(pulled.complete for pulled in found)  # type: ignore[union-attr]
        return sum(pulled.n_events for pulled in found)  # type: ignore[union-attr]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return views.query(self.home, query).rows()


@pytest.fixture
def office(studio: Studio, request: pytest.FixtureRequest) -> Iterator[Callable[[], Office]]:
    def clean() -> None:
        shutil.rmtree(studio.home.tables, ignore_errors=True)
        (studio.home.studio / "item_projects.json").unlink(missing_ok=True)

    clean()
    yield lambda: Office(studio, request.node.name[-35:])
    clean()


def tasks_of(client: LabelStudioClient, pushed: item_sync.ItemPush) -> dict[str, dict[str, Any]]:
    """Return item to its task."""
    project = [*pushed.pushed.tasks][-1]
    found = client.tasks(project, include="id,data,is_labeled", task_only=True)
    return {task["data"]["item_id"]: task for task in found}


def vote(
    person: Account, client: LabelStudioClient, task: dict[str, Any], answers: dict[str, Any],
    **more: Any,
) -> int:  # fmt: skip
    body = {"result": item_result(answers, task["data"]), "lead_time": 2.0} | more
    with LabelStudioClient(person.address(client.url)) as own:
        return api(own, "POST", f"/api/tasks/{task['id']}/annotations/", body)["id"]


def test_segments__answers_of_every_kind_come_back(
    office: Callable[[], Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office()
    pushed = item_sync.push_items(made.workspace, "utterance")
    assert (pushed.pushed.new, pushed.left) == (
        2, {"no_sound: set RISORIUS_KEEP_AUDIO, or use a page without sound": 1}
    )  # fmt: skip
    again = item_sync.push_items(made.workspace, "utterance")
    assert (again.pushed.new, again.pushed.known) == (0, 2)
    tasks = tasks_of(client, pushed)
    given = {
        "label": ["anger", "fear"], "words": ["uneasy"], "rationale": "Brows & voice",
        "spans": [{"label": "present", "start_s": 0.5, "end_s": 1.5, "cues": ["voice"]}],
    }  # fmt: skip
    vote(voters[0], client, tasks["v-s2"], given)
    vote(voters[1], client, tasks["v-s2"], {"label": ["fear"]})
    assert made.pull() == 2
    assert made.ask(
        "SELECT item_kind, item_id, label_set, labels FROM item_votes ORDER BY rater_id = "
        f"'{voters[1].rater_id}'"
    ) == [("segment", "v-s2", "mafw11", ["anger", "fear"]), ("segment", "v-s2", "mafw11", ["fear"])]
    (stored,) = made.ask("SELECT answers FROM item_votes WHERE len(labels) = 2")
    assert json.loads(stored[0]) == given
    assert made.ask("SELECT count(*) FROM current_votes") == [(0,)]
    third = item_sync.push_items(made.workspace, "utterance")
    assert third.pushed.new == 0
    done = {item: task["is_labeled"] for item, task in tasks_of(client, third).items()}
    assert done == {"v-s2": True, "v-s3": False}


@pytest.mark.parametrize("page", KINDS)
def test_items__no_vote_is_lost_by_edit_skip_delete_copy_or_another_hand(
    office: Callable[[], Office], client: LabelStudioClient, voters: list[Account], page: str
) -> None:
    made, (ada, ben, cem) = office(), voters
    (item, other), say = KINDS[page]
    tasks = tasks_of(client, item_sync.push_items(made.workspace, page))
    assert tasks.keys() == {item, other}
    first = vote(ada, client, tasks[item], say("fear"))
    second = vote(ben, client, tasks[item], say("anger"))
    vote(cem, client, tasks[item], say("disgust"), was_cancelled=True)
    deleted = vote(ben, client, tasks[other], say("anger"))
    assert made.pull() == 4
    edit = {"result": item_result(say("sadness"), tasks[item]["data"])}
    with LabelStudioClient(ada.address(client.url)) as own:
        api(own, "PATCH", f"/api/annotations/{first}/", edit)
        api(own, "PATCH", f"/api/annotations/{second}/", edit)  # another's hand
    api(client, "DELETE", f"/api/annotations/{deleted}/")
    assert made.pull() == 3
    given = "SELECT item_id, rater_id, answers FROM item_votes"
    stored = {(about, who): json.loads(said) for about, who, said in made.ask(given)}
    assert stored == {(item, ben.rater_id): say("anger"), (item, ada.rater_id): say("sadness")}
    assert made.ask("SELECT event, count(*) FROM annotations GROUP BY ALL ORDER BY ALL") == [
        ("created", 4), ("deleted", 1), ("updated", 2)
    ]  # fmt: skip
    # A copy of the task is another task about the same item: the rater's newest answer counts.
    data = tasks[item]["data"]
    (project,) = item_sync.push_items(made.workspace, page).pushed.tasks
    copied = client.import_tasks(project, [{"data": data}])[0]
    vote(ada, client, {"id": copied, "data": data}, say("surprise"))
    assert made.pull() == 1
    assert json.loads(dict(made.ask("SELECT rater_id, answers FROM item_votes"))[ada.rater_id]) == (
        say("surprise")
    )


def test_dialogue__turns_by_paragraph(
    office: Callable[[], Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office()
    tasks = tasks_of(client, item_sync.push_items(made.workspace, "dialogue"))
    assert [turn["text"] for turn in tasks["v-d-d"]["data"]["turns"]] == ["line 0", "line 1"]
    turns = {"turns": [{"label": "anger", "turn": 1, "start": 0, "end": 6}]}
    vote(voters[0], client, tasks["v-d-d"], turns)
    assert made.pull() == 1
    ((stored,),) = made.ask("SELECT answers FROM item_votes WHERE item_kind = 'dialogue'")
    assert json.loads(stored) == turns


def test_erasure__tasks_of_the_subject_and_what_others_show_of_it(
    office: Callable[[], Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office()
    pushed = {page: item_sync.push_items(made.workspace, page) for page in KINDS}
    tasks = {page: tasks_of(client, found) for page, found in pushed.items()}
    said = {"label": ["fear"], "rationale": "She frowns"}
    vote(voters[0], client, tasks["utterance"]["v-s3"], said)
    assert made.pull() == 1
    erased = ("v-s2", "v-0-c", "v-d-d", "v-d-e", "w")
    of = dict.fromkeys(("faces", "tracks", "crops", "contexts", "sources", "signatures"), ())
    subject = DataSubject("subject", "ann", videos=("w",), shared=("v",), items=erased, **of)
    assert erasure.delete_tasks(made.settings, subject) == {"labelling tasks": 6}
    left = {page: tasks_of(client, found) for page, found in pushed.items()}
    assert {item for found in left.values() for item in found} == {"v-s3", "v-1-c", "p", "q"}
    data = left["utterance"]["v-s3"]["data"]
    assert [data[name] for name in ("video", "sound", "transcript")] == ["", "", ""]
    assert left["clip"]["v-1-c"]["data"]["video"] == ""
    assert "pictures/p.jpg" in left["picture"]["p"]["data"]["picture"]
    project = [*pushed["utterance"].pushed.tasks][-1]
    (task,) = client.tasks(project, include="id,data,annotations")
    assert "frowns" not in json.dumps(task)
    # The choice stands, although another account took the text out of it.
    made.pull()
    assert made.ask("SELECT labels FROM item_votes") == [(["fear"],)]


def test_items__name_what_cannot_be_shown(office: Callable[[], Office]) -> None:
    made = office()
    statement = {"item_kind": "picture", "item_id": "q", "kind": "statement", "position": 0,
                 "text": "She is glad.", "author_kind": "machine", "rater_id": "r"}  # fmt: skip
    made.write("texts", [statement])
    rows, left = item_sync.items(made.home, item_page.load("statement"))
    (data,) = map(json.loads, rows["data"])
    assert (data["item_id"], data["statement"]) == ("q", "She is glad.")
    assert left == {
        "no_picture: its picture could not be written": 1,
        "no_statement: no row of texts is a statement about it": 1,
    }
    # What a page does not ask about is no field: answers would point at it.
    rows, _ = item_sync.items(made.home, item_page.load("picture"))
    assert [json.loads(row).keys() & {"statement", "sound"} for row in rows["data"]] == [set()] * 2
