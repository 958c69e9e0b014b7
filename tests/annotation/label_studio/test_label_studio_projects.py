"""Push and pull over all projects of a home: rounds, pages, audits."""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from annotation.label_studio import progress, projects, sync, users
from annotation.label_studio.answers import result_of
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.event_log import PullResult
from annotation.label_studio.projects import Project
from annotation.label_studio.tasks import PushResult
from annotation.label_studio.users import Account
from annotation.label_studio.workspace import Workspace
from pipeline.cli.label import _show_status
from pipeline.settings import Settings
from tests.annotation.label_studio.conftest import Studio, api, faces
from warehouse.errors import StudioError
from warehouse.storage import tables, views
from warehouse.storage.schema import TABLES

pytestmark = pytest.mark.studio


class Office:
    """A home with accepted faces and a queue, whose server runs.

    Settings may change during a test.
    """

    def __init__(self, running: Studio, title: str, count: int, **given: Any) -> None:
        self.home, self.given = running.home, {"project": title, "wanted_votes": 2} | given
        drawn = faces(running.home, count)
        self.face_ids: list[str] = drawn["face_id"].to_list()
        rows = drawn.drop("reason").with_columns(
            track_id=pl.lit("drawn-0000"), video_id=pl.lit("drawn"), batch=pl.lit("b"),
            verdict=pl.lit("kept"),
        )  # fmt: skip
        table = pl.concat([TABLES["faces"].empty(), rows], how="diagonal_relaxed")
        tables.write(self.home, "faces", table, part="drawn", batch="b")
        self.queue(dict.fromkeys(self.face_ids, "coverage"))

    def settings(self, **more: Any) -> Settings:
        self.given |= more
        return Settings(home=self.home.root, **self.given)

    def workspace(self, **more: Any) -> Workspace:
        return self.settings(**more).label_studio

    def projects(self, client: LabelStudioClient) -> list[Project]:
        return projects.find(self.workspace(), client, [self.given["project"]])

    def queue(self, reasons: dict[str, str], wanted: int = 2) -> None:
        rows = [(face, 1, 0.5, reason, wanted) for face, reason in reasons.items()]
        table = pl.DataFrame(rows, schema=TABLES["queue"].schema, orient="row")
        tables.write(self.home, "queue", table, part="current")

    def push(self, **more: Any) -> PushResult:
        return sync.push_faces(self.workspace(**more))

    def pull(self, **more: Any) -> dict[int, PullResult | StudioError]:
        workspace = self.workspace(**more)
        found = {
            project.id: pulled
            for project, pulled in sync.pull_votes(workspace, now=datetime.now(UTC))
        }
        sync.open_and_close_tasks(workspace)
        return found

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return views.query(self.home, query).rows()


@pytest.fixture
def office(studio: Studio, request: pytest.FixtureRequest) -> Iterator[Callable[..., Office]]:
    def make(count: int, **given: Any) -> Office:
        return Office(studio, request.node.name[-45:], count, **given)

    shutil.rmtree(studio.home.tables, ignore_errors=True)
    yield make
    shutil.rmtree(studio.home.tables, ignore_errors=True)


def offered(client: LabelStudioClient, project_id: int) -> dict[str, int]:
    """Return face to open task; fail if a face has two open tasks."""
    found = [
        (task["data"]["face_id"], task["id"])
        for task in client.tasks(project_id, include="id,data,is_labeled", task_only=True)
        if not task["is_labeled"]
    ]
    assert len({face for face, _ in found}) == len(found)
    return dict(found)


def vote(
    person: Account, client: LabelStudioClient, task: int, *expressions: str, **more: Any
) -> int:
    body = {"result": result_of(expressions), "lead_time": 2.0} | more
    with LabelStudioClient(person.address(client.url)) as own:
        return api(own, "POST", f"/api/tasks/{task}/annotations/", body)["id"]


@pytest.mark.slow
def test_push__full_project_begins_a_new_round(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(10, project_cap=4)
    asked = made.push()
    assert (asked.new, asked.known, list(asked.tasks.values())) == (10, 0, [4, 4, 2])
    again = made.push()
    assert (again.new, again.known, again.tasks) == (0, 10, asked.tasks)
    where = {face: n for number in asked.tasks for face, n in offered(client, number).items()}
    assert sorted(where) == sorted(made.face_ids)
    for face in made.face_ids[::3]:
        vote(voters[0], client, where[face], "fear")
    pulled = made.pull()
    assert {number: p.n_standing for number, p in pulled.items()} == dict(
        zip(asked.tasks, (2, 1, 1), strict=True)
    )
    assert made.ask("SELECT count(*), sum(missing)::INT FROM votes_missing") == [(10, 16)]


@pytest.mark.slow
def test_push__two_at_once_over_rounds(
    office: Callable[..., Office], client: LabelStudioClient
) -> None:
    made = office(30, project_cap=12)
    made.push(project_cap=12)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: sync.push_faces(made.workspace()), range(2)))
    assert both[0].tasks == both[1].tasks
    seen = Counter(face for number in both[0].tasks for face in offered(client, number))
    assert seen == Counter(made.face_ids)


def test_push__closes_complete_faces_and_reopens_others(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(3)
    (number,) = made.push().tasks
    one, two, three = (offered(client, number)[face] for face in made.face_ids)
    for person in voters[:2]:
        vote(person, client, one, "anger")
    # Twice malformed: the server counts two annotations, we count no vote.
    for person in voters[:2]:
        vote(person, client, two, result=result_of(["glee"]))
    assert set(offered(client, number).values()) == {three}
    made.pull()
    assert set(offered(client, number).values()) == {two, three}
    # The third face is removed from the queue elsewhere.
    made.queue(dict.fromkeys(made.face_ids[:2], "coverage"))
    made.push()
    assert set(offered(client, number).values()) == {two}
    assert made.ask("SELECT missing FROM votes_missing ORDER BY face_id") == [(0,), (2,)]


def test_push__audit_adds_one_second_task(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    (number,) = made.push().tasks
    first = offered(client, number)
    for person in voters[:2]:
        for task in first.values():
            vote(person, client, task, "anger")
    made.pull()
    assert made.push().new == 0
    made.queue({made.face_ids[0]: "audit"}, wanted=4)
    assert [made.push().new for _ in range(2)] == [1, 0]
    (again,) = offered(client, number).values()
    assert again not in first.values()
    # The same two people may answer again: both answers are kept, the newest is the vote.
    for person in voters[:2]:
        vote(person, client, again, "disgust")
    made.pull()
    assert offered(client, number) == {}
    assert made.ask("SELECT missing FROM votes_missing") == [(0,)]
    assert made.push().new == 0 or offered(client, number) == {}
    labels = "SELECT label, count(*) FROM votes GROUP BY ALL ORDER BY ALL"
    assert made.ask(labels) == [("anger", 2), ("disgust", 2)]
    assert made.ask("SELECT count(*) FROM standing_annotations") == [(6,)]


@pytest.mark.slow
def test_push__new_page_is_a_new_project(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    (old,) = made.push().tasks
    kept = vote(voters[0], client, offered(client, old)[made.face_ids[0]], "fear")
    made.pull()
    asked = made.push(ask_mood=True, ask_au=(12, 4), ask_compounds=True, ask_free_label=True)
    (new,) = asked.tasks
    assert new != old
    assert offered(client, old) == {}
    said = result_of(
        ["happiness+surprise"], mood={"valence": 0.5, "arousal": -0.2}, au={4: 0.0, 12: 0.8},
        free_label="glee",
    )  # fmt: skip
    vote(voters[1], client, offered(client, new)[made.face_ids[0]], result=said)
    with LabelStudioClient(voters[0].address(client.url)) as ada:
        api(ada, "PATCH", f"/api/annotations/{kept}/", {"result": result_of(["sadness"])})
    assert all(pulled.complete for pulled in made.pull().values())
    votes = "SELECT label, weight, round(valence, 2) FROM votes ORDER BY label"
    assert made.ask(votes) == [
        ("happiness", 0.5, 0.5),
        ("sadness", 1.0, None),
        ("surprise", 0.5, 0.5),
    ]
    assert made.ask("SELECT unit, intensity FROM au_votes ORDER BY unit") == [(4, 0.0), (12, 0.8)]
    extra = "SELECT compounds, free_label FROM current_votes WHERE free_label IS NOT NULL"
    assert made.ask(extra) == [(["happiness+surprise"], "glee")]
    # Both of its votes are there: the first face is open on neither page.
    assert set(offered(client, new)) == {made.face_ids[1]}


@pytest.mark.slow
def test_push__coarse_and_fine_questions(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    (fine,) = made.push().tasks
    (coarse,) = made.push(label_set="coarse").tasks
    assert set(offered(client, fine)) == set(offered(client, coarse)) == set(made.face_ids)
    for person in voters[:2]:
        task = offered(client, coarse)[made.face_ids[0]]
        vote(person, client, task, "negative")
    made.pull()
    assert set(offered(client, coarse)) == {made.face_ids[1]}
    assert set(offered(client, fine)) == set(made.face_ids)
    assert made.ask("SELECT label, label_set FROM coarse_votes") == [("negative", "coarse")] * 2
    assert made.ask("SELECT count(*) FROM votes") == [(0,)]


def test_push__refuses_an_edited_config(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    (number,) = made.push().tasks
    task = offered(client, number)[made.face_ids[0]]
    row = api(client, "GET", f"/api/projects/{number}/")
    edited = row["label_config"].replace('alias="contempt"', 'alias="scorn"')
    api(client, "PATCH", f"/api/projects/{number}/", {"label_config": edited})
    vote(voters[0], client, task, "fear")
    vote(voters[1], client, task, result=[*result_of(["fear"])[:1], *result_of(["scorn"])[1:]])
    with pytest.raises(StudioError, match=r"edited by hand.*--restore-config"):
        made.push()
    (pulled,) = made.pull().values()
    assert pulled.complete
    assert made.ask("SELECT label FROM votes") == [("fear",)]
    assert [p.edited for p in made.projects(client)] == [True]
    assert sync.restore_configs(made.workspace()) == [number]
    assert made.push().known == 2


def test_pull__flags_votes_beside_a_prediction(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    rated = [
        {"face_id": face, "rater_id": "machine-1", "batch": "b",
         "expression": [0, 0, 0, 0, 0, 0, 1, 0]}
        for face in made.face_ids[:1]
    ]  # fmt: skip
    table = pl.DataFrame(rated, schema_overrides=TABLES["ratings"].schema, strict=False)
    table = pl.concat([TABLES["ratings"].empty(), table], how="diagonal_relaxed")
    tables.write(made.home, "ratings", table, part="drawn", batch="b")
    (blind,) = made.push().tasks
    vote(voters[0], client, offered(client, blind)[made.face_ids[0]], "anger")
    (shown,) = made.push(show_predictions=True).tasks
    assert api(client, "GET", f"/api/projects/{shown}/")["show_collab_predictions"] is True
    with LabelStudioClient(voters[1].address(client.url)) as ben:
        served = [api(ben, "GET", f"/api/projects/{shown}/next")]
        vote(voters[1], client, served[0]["id"], "fear")
        served.append(api(ben, "GET", f"/api/projects/{shown}/next"))
        vote(voters[1], client, served[1]["id"], "fear")
    assert {task["data"]["face_id"]: len(task["predictions"]) for task in served} == {
        made.face_ids[0]: 1, made.face_ids[1]: 0,
    }  # fmt: skip
    made.pull()
    rows = "SELECT face_id, label_set, saw_prediction FROM current_votes ORDER BY ALL"
    assert made.ask(rows) == [
        (made.face_ids[0], "expressions", False),
        (made.face_ids[0], "expressions", True),
        (made.face_ids[1], "expressions", False),
    ]


def test_pull__edits_by_others_are_no_votes(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    (number,) = made.push().tasks
    one, two = (offered(client, number)[face] for face in made.face_ids)
    mine = vote(voters[0], client, one, "fear")
    made.pull()
    with LabelStudioClient(voters[1].address(client.url)) as ben:
        api(ben, "PATCH", f"/api/annotations/{mine}/", {"result": result_of(["anger"])})
        forged = {"result": result_of(["disgust"]), "completed_by": voters[0].user_id}
        api(ben, "POST", f"/api/tasks/{two}/annotations/", forged)
    assert all(pulled.complete for pulled in made.pull().values())
    ada, ben = (person.rater_id for person in voters[:2])
    query = "SELECT face_id, rater_id, edited_by, what, expressions FROM edits_by_others ORDER BY 1"
    assert made.ask(query) == [
        (made.face_ids[0], ada, ben, "edited", ["anger"]),
        (made.face_ids[1], ada, ben, "submitted in their name", ["disgust"]),
    ]
    assert made.ask("SELECT face_id, rater_id, label FROM votes") == [
        (made.face_ids[0], ada, "fear")
    ]
    assert made.ask("SELECT count(*) FROM standing_annotations") == [(2,)]
    with LabelStudioClient(voters[0].address(client.url)) as own:
        api(own, "PATCH", f"/api/annotations/{mine}/", {"result": result_of(["sadness"])})
    made.pull()
    assert made.ask("SELECT label FROM votes") == [("sadness",)]
    facts = progress.summary(made.workspace())
    assert facts["annotations written by another account"] == 2


def declare(made: Office, subjects: list[str | None]) -> None:
    """Give every face a track of its own, of a declared subject or none."""
    table = tables.read(made.home, "faces").sort("face_id").with_columns(track_id="face_id")
    tables.write(made.home, "faces", table, part="drawn", batch="b")
    rows = table.select("track_id", "video_id", "batch", subject_id=pl.Series(subjects))
    tracks = pl.concat([TABLES["tracks"].empty(), rows], how="diagonal_relaxed")
    tables.write(made.home, "tracks", tracks, part="drawn", batch="b")


def test_push__subjects_get_their_own_faces(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(4)
    mine, also_mine, other, of_no_subject = made.face_ids
    declare(made, ["s-1", "s-1", "s-2", None])
    given = {"kind": "self", "subject": "s-1"}
    filmed = users.add(client, made.home, "filmed@example.org", **given)
    asked = made.push()
    (shared,) = asked.tasks
    assert set(offered(client, shared)) == set(made.face_ids)
    (own,) = projects.find(
        made.workspace(), client, [users.project_title(made.workspace(), filmed)]
    )
    assert set(offered(client, own.id)) == {mine, also_mine}
    name = filmed.rater_id
    assert f"/projects/{own.id}/" in asked.links[name]
    vote(filmed, client, offered(client, own.id)[mine], "contempt")
    # In the observers' project, which every member may enter, it takes no place either.
    vote(filmed, client, offered(client, shared)[other], "anger")
    vote(voters[0], client, offered(client, shared)[other], "neutral")
    made.pull()
    assert set(offered(client, shared)) == set(made.face_ids)
    assert set(offered(client, own.id)) == {also_mine}
    assert made.ask("SELECT face_id, label FROM votes") == [(other, "neutral")]
    said = made.ask("SELECT face_id, answer.expressions FROM self_reports ORDER BY face_id")
    assert said == [(mine, ["contempt"]), (other, ["anger"])]
    missing = made.ask("SELECT face_id, missing FROM votes_missing ORDER BY face_id")
    assert missing == [(mine, 2), (also_mine, 2), (other, 1), (of_no_subject, 2)]
    # After a change of the subject they are served that one's faces alone.
    users.add(client, made.home, "filmed@example.org", kind="self", subject="s-2")
    made.push()
    assert set(offered(client, own.id)) == set()
    users.remove(client, made.home, "filmed@example.org")


def test_status__missing_votes_by_annotator(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(3)
    (number,) = made.push().tasks
    tasks = offered(client, number)
    vote(voters[0], client, tasks[made.face_ids[0]], "fear")
    vote(voters[0], client, tasks[made.face_ids[1]], was_cancelled=True, result=[])
    vote(voters[1], client, tasks[made.face_ids[0]], "fear")
    made.pull()
    found = {row["email"]: row for row in progress.open_faces(made.workspace()).to_dicts()}
    ada, ben, cem = (found[person.email] for person in voters)
    assert (ada["votes"], ada["skips"], ada["faces"]) == (1, 1, 1)
    assert (ben["votes"], ben["skips"], ben["faces"]) == (1, 0, 2)
    assert (cem["votes"], cem["skips"], cem["faces"]) == (0, 0, 2)
    assert sum(row["share"] for row in found.values()) == pytest.approx(4)
    facts = progress.summary(made.workspace())
    assert (facts["votes"], facts["votes missing"], facts["skips"]) == (2, 4, 1)
    rater = voters[0].rater_id
    assert facts[f"votes of {rater}"] == {
        "votes": 1, "skipped": 1, "agreement": None, "open": 1,
        "missing": pytest.approx(ada["share"], abs=1e-3),
    }  # fmt: skip
    page = io.StringIO()
    _show_status(facts, Console(file=page, width=200))
    assert re.search(rf"^{rater} +1 +1 +- +1 +\d$", page.getvalue(), re.MULTILINE)
    # Two people who said the same of the only face they share: nothing to agree beyond.
    assert re.search(r"krippendorff's alpha +not defined yet", page.getvalue())


@pytest.mark.slow
def test_pull__deleted_project_keeps_its_votes(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(4, project_cap=2)
    first, second = made.push().tasks
    for number in (first, second):
        for task in offered(client, number).values():
            vote(voters[0], client, task, "fear")
    made.pull()
    api(client, "DELETE", f"/api/projects/{first}/")
    assert list(made.pull()) == [second]
    assert made.ask("SELECT count(*) FROM votes") == [(4,)]
    # What was missing there is asked in a new project; what was answered there is not forgotten.
    assert sum(made.push().tasks.values()) == 4
    assert made.ask("SELECT sum(missing)::INT FROM votes_missing") == [(4,)]


@pytest.mark.slow
def test_push__order_differs_by_annotator(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(12)
    asked = made.push()
    (number,) = asked.tasks
    again = made.push()
    assert again.links == asked.links
    tabs = {tab["id"]: tab["data"] for tab in api(client, "GET", "/api/dm/views/", project=number)}
    walks = []
    for person in voters:
        link = asked.links[person.rater_id]
        tab = int(link.split("tab=")[1].split("&")[0])
        body = {
            "project": number, "ordering": tabs[tab]["ordering"],
            "filters": tabs[tab]["filters"], "selectedItems": {"all": True, "excluded": []},
        }  # fmt: skip
        with LabelStudioClient(person.address(client.url)) as own:
            walk = []
            for _ in range(6):
                path = f"/api/dm/actions/?id=next_task&project={number}&tabID={tab}"
                task = api(own, "POST", path, body)
                walk.append(task["data"]["face_id"])
                vote(person, client, task["id"], "fear")
        walks.append(walk)
    # Two votes close a face, so a later person cannot be given all of an earlier one's.
    assert len({tuple(walk) for walk in walks}) == 3
    assert walks[1][:3] != walks[0][:3]
