"""Votes are pulled as events, each once.

They are created, edited, deleted, skipped or malformed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from annotation.label_studio import event_log, installation, users
from annotation.label_studio.answers import result_of
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.event_log import PullResult, standing_annotations
from annotation.label_studio.users import Account
from annotation.label_studio.workspace import Workspace
from tests.annotation.label_studio.conftest import Board, Pulled, Studio, api, pull, push
from warehouse.errors import StudioError
from warehouse.ids import pseudonym
from warehouse.storage.schema import TABLES

pytestmark = pytest.mark.studio


class Desk:
    """A project with tasks, annotators, and the events pulled so far."""

    def __init__(self, made: Board, voters: list[Account], studio: Studio) -> None:
        self.id, self.client, self.voters, self.studio = made.id, made.client, voters, studio
        self.tasks = push(made.client, made.id, made.faces).task_ids
        self.face_ids = made.face_ids
        self.known = TABLES["annotations"].empty()

    @contextmanager
    def sitting(self, who: int) -> Iterator[LabelStudioClient]:
        with LabelStudioClient(self.voters[who].address(self.client.url)) as person:
            yield person

    def vote(self, who: int, face: int, *expressions: str, **more: Any) -> int:
        body = {"result": result_of(expressions), "lead_time": 3.5} | more
        task = self.tasks[self.face_ids[face]]
        with self.sitting(who) as person:
            return api(person, "POST", f"/api/tasks/{task}/annotations/", body)["id"]

    def pull(self, **more: Any) -> Pulled:
        given: dict[str, Any] = {
            "known": self.known,
            "rater_of": users.rater_of(Workspace(self.studio.home)),
            "now": datetime.now(UTC),
        }
        pulled = pull(self.client, self.id, **given | more)
        self.known = pl.concat([self.known, pulled.events])
        assert pulled.complete
        return pulled

    def standing(self) -> dict[int, list[str]]:
        rows = (
            standing_annotations(self.known, self.id).select("annotation_id", "answer").iter_rows()
        )
        return {number: answer["expressions"] for number, answer in rows}


@pytest.fixture
def desk(board: Callable[[int], Board], voters: list[Account], studio: Studio) -> Desk:
    return Desk(board(4), voters, studio)


def happened(pulled: Pulled) -> list[tuple[int, str, list[str]]]:
    rows = pulled.events.sort("annotation_id", "updated_at").iter_rows(named=True)
    return [(row["annotation_id"], row["event"], row["answer"]["expressions"]) for row in rows]


def test_pull__vote_has_every_column(desk: Desk) -> None:
    before = datetime.now(UTC)
    number = desk.vote(1, 0, "happiness", "surprise")
    (row,) = desk.pull().events.to_dicts()
    assert row["created_at"] >= before - timedelta(seconds=5)
    assert row["updated_at"] >= row["created_at"]
    del row["created_at"], row["updated_at"], row["pulled_at"]
    assert row == {
        "annotation_id": number,
        "task_id": desk.tasks[desk.face_ids[0]],
        "project_id": desk.id,
        "face_id": desk.face_ids[0],
        "item_kind": "face",
        "item_id": desk.face_ids[0],
        "answers": None,
        "rater_id": pseudonym("person", desk.studio.home.salt(), "ben@example.org"),
        "rater_kind": "person",
        "event": "created",
        "answer": {
            "validity": "face",
            "expressions": ["happiness", "surprise"],
            "confidence": None,
            "valence": None,
            "arousal": None,
            "note": None,
        },
        "lead_time_s": 3.5,
        "was_cancelled": False,
        "saw_prediction": False,
        "label_set": "expressions",
        "labels": None,
        "compounds": None,
        "free_label": None,
        "au": None,
        "edited_by": None,
    }


def test_pull__created_edited_deleted_skipped(desk: Desk) -> None:
    one, two = desk.vote(0, 0, "fear"), desk.vote(1, 0, "anger")
    three = desk.vote(0, 1, "neutral")
    skip = desk.vote(2, 1, was_cancelled=True, result=[])
    first = desk.pull()
    assert happened(first) == [
        (one, "created", ["fear"]),
        (two, "created", ["anger"]),
        (three, "created", ["neutral"]),
        (skip, "created", []),
    ]
    assert first.events.filter(pl.col("was_cancelled"))["annotation_id"].to_list() == [skip]
    assert desk.pull().events.is_empty()

    with desk.sitting(0) as ada:
        api(ada, "PATCH", f"/api/annotations/{one}/", {"result": result_of(["sadness"])})
    with desk.sitting(1) as ben:
        api(ben, "DELETE", f"/api/annotations/{two}/")
    second = desk.pull()
    assert happened(second) == [(one, "updated", ["sadness"]), (two, "deleted", ["anger"])]
    assert second.n_on_server == second.n_standing == 3
    assert desk.standing() == {one: ["sadness"], three: ["neutral"], skip: []}
    assert standing_annotations(desk.known, desk.id).height == 3
    assert standing_annotations(first.events, desk.id).height == 4
    assert desk.pull().events.is_empty()


def test_pull__deleted_task_deletes_its_votes(desk: Desk) -> None:
    gone, stays = desk.vote(0, 0, "fear"), desk.vote(0, 1, "anger")
    desk.pull()
    api(desk.client, "DELETE", f"/api/tasks/{desk.tasks[desk.face_ids[0]]}/")
    late = desk.vote(1, 2, "disgust")
    assert happened(desk.pull()) == [(gone, "deleted", ["fear"]), (late, "created", ["disgust"])]
    assert desk.standing() == {stays: ["anger"], late: ["disgust"]}
    assert desk.pull(whole=True).events.is_empty()


def test_pull__malformed_results_are_no_votes(desk: Desk) -> None:
    numbers = [
        desk.vote(0, 0, result=[{"value": 1}]),
        desk.vote(0, 1, result=result_of(["glee"])),
        desk.vote(0, 2, "fear"),
    ]
    events = desk.pull().events.sort("annotation_id")
    assert events["annotation_id"].to_list() == numbers
    answers = events["answer"].to_list()
    assert [answer["expressions"] for answer in answers] == [[], [], ["fear"]]
    assert ["malformed" in (answer["note"] or "") for answer in answers] == [True, True, False]


def test_pull__task_without_face_id(desk: Desk) -> None:
    desk.vote(0, 0, "fear")
    task = desk.tasks[desk.face_ids[0]]
    api(desk.client, "PATCH", f"/api/tasks/{task}/", {"data": {"crop": "x", "context": "y"}})
    assert desk.pull().events["face_id"].to_list() == [None]


def test_pull__changes_equal_a_whole_pull(desk: Desk) -> None:
    """Pulls by changes and whole pulls of a history give the same table."""
    whole = TABLES["annotations"].empty()
    rater_of = users.rater_of(Workspace(desk.studio.home))

    def step() -> None:
        nonlocal whole
        now = datetime.now(UTC)
        desk.pull(now=now)
        events = pull(
            desk.client, desk.id, known=whole, rater_of=rater_of, now=now, whole=True
        ).events
        whole = pl.concat([whole, events])

    numbers = [desk.vote(who, face, "anger") for who in range(3) for face in range(2)]
    step()
    with desk.sitting(2) as cem:
        api(cem, "DELETE", f"/api/annotations/{numbers[-1]}/")
        api(cem, "PATCH", f"/api/annotations/{numbers[-2]}/", {"was_cancelled": True})
    step()
    api(desk.client, "DELETE", f"/api/tasks/{desk.tasks[desk.face_ids[1]]}/")
    desk.vote(0, 3, "contempt")
    step()
    order = ["annotation_id", "updated_at", "event"]
    assert desk.known.sort(order).equals(whole.sort(order))
    assert desk.known["event"].value_counts().sort("event")["count"].to_list() == [7, 3, 1]


def test_pull__vote_stamped_before_the_newest(desk: Desk) -> None:
    """If the server's clock was set back, everything is read.

    The counts of the server then differ from those of the table.
    """
    desk.vote(0, 0, "fear")
    desk.pull()
    late = desk.vote(1, 1, "anger")
    long_ago = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%d %H:%M:%S.%f")
    path, task = (
        desk.studio.home.studio / "data" / installation.DATABASE,
        desk.tasks[desk.face_ids[1]],
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, row in (("task", task), ("task_completion", late)):
            connection.execute(f"UPDATE {table} SET updated_at = ? WHERE id = ?", (long_ago, row))
    assert happened(desk.pull()) == [(late, "created", ["anger"])]


def test_pull__wrong_local_clock(desk: Desk) -> None:
    number = desk.vote(0, 0, "fear")
    ahead = datetime.now(UTC) + timedelta(days=3)
    desk.pull(now=ahead)
    with desk.sitting(0) as ada:
        api(ada, "DELETE", f"/api/annotations/{number}/")
    later = desk.vote(0, 1, "anger")
    assert happened(desk.pull(now=ahead - timedelta(days=9))) == [
        (number, "deleted", ["fear"]),
        (later, "created", ["anger"]),
    ]
    assert desk.standing() == {later: ["anger"]}


def test_pull__ignores_other_projects(desk: Desk) -> None:
    desk.vote(0, 0, "fear")
    first = desk.pull().events
    elsewhere = first.with_columns(project_id=pl.lit(desk.id + 1000, pl.Int64))
    desk.known = pl.concat([elsewhere, first])
    assert desk.pull().events.is_empty()


def test_pull__deleted_account_keeps_its_pseudonym(desk: Desk, studio: Studio) -> None:
    folder = studio.home
    dora = users.add(desk.client, folder, "dora@example.org")
    desk.voters = [dora]
    voted, rater = (
        desk.vote(0, 0, "fear"),
        pseudonym("person", desk.studio.home.salt(), "dora@example.org"),
    )
    desk.pull()
    api(desk.client, "DELETE", f"/api/users/{dora.user_id}/")
    moved = {"result": result_of(["anger"])}
    api(desk.client, "PATCH", f"/api/annotations/{voted}/", moved)
    assert happened(desk.pull()) == [(voted, "updated", ["anger"])]
    assert set(desk.known["rater_id"]) == {rater}
    assert users.rater_of(Workspace(studio.home))(dora.user_id, "")[0] == rater


def test_pull__new_database_deletes_no_votes(desk: Desk) -> None:
    desk.vote(0, 0, "fear")
    old = desk.pull().events.with_columns(pl.col("created_at") - pl.duration(days=30))
    desk.known = old
    with pytest.raises(StudioError, match="after the first of those votes"):
        desk.pull()


def test_pull__names_a_deleted_project(desk: Desk) -> None:
    api(desk.client, "DELETE", f"/api/projects/{desk.id}/")
    with pytest.raises(StudioError, match="HTTP 404"):
        desk.pull()


def test_pull__killed_between_two_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_PART", 1)
    early = desk.vote(0, 3, "fear")
    desk.pull()
    with desk.sitting(0) as ada:
        api(ada, "PATCH", f"/api/annotations/{early}/", {"result": result_of(["anger"])})
    late = desk.vote(1, 0, "neutral")
    kept = [desk.known]

    class PulledThePlugError(Exception):
        pass

    def die_after_one(events: pl.DataFrame) -> None:
        kept.append(events)
        raise PulledThePlugError

    def again(append: Callable[[pl.DataFrame], None], **more: Any) -> PullResult:
        return event_log.pull(
            desk.client, desk.id, known=lambda: pl.concat(kept).lazy(), append=append,
            rater_of=users.rater_of(Workspace(desk.studio.home)),
            now=datetime.now(UTC), page_size=1, **more,
        )  # fmt: skip

    with pytest.raises(PulledThePlugError):
        again(die_after_one)
    # The newest known vote is newer than the edit that was not read, and all counts agree.
    assert kept[-1]["annotation_id"].to_list() == [late]
    found = again(kept.append, whole=True)
    assert (found.complete, found.n_events) == (True, 1)
    desk.known = pl.concat(kept)
    assert desk.standing() == {early: ["anger"], late: ["neutral"]}
