"""The server's database is put back from an older copy; no vote is lost.

Numbers are given again, answers go back, deleted votes return.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from annotation.label_studio import installation, projects
from annotation.label_studio.answers import result_of
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.users import Account
from tests.annotation.label_studio.conftest import Pulled, Studio, api
from tests.annotation.label_studio.test_label_studio_projects import Office, offered, office, vote
from tests.annotation.label_studio.test_label_studio_pull import Desk, desk
from warehouse.errors import StudioError
from warehouse.storage import tables, views
from warehouse.storage.home import Home

pytestmark = pytest.mark.studio

__all__ = ["desk", "office"]


class Copy:
    """A copy of the server's database, to be put back while the server runs."""

    def __init__(self, studio: Studio, path: Path) -> None:
        self.live, self.path = studio.home.studio / "data" / installation.DATABASE, path
        self._copy(self.live, self.path)

    def put_back(self) -> None:
        self._copy(self.path, self.live)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)


@pytest.fixture
def copy(studio: Studio, tmp_path: Path) -> Callable[[], Copy]:
    return lambda: Copy(studio, tmp_path / "older.sqlite3")


def edit(desk: Desk, who: int, number: int, expression: str) -> None:
    with desk.sitting(who) as person:
        body = {"result": result_of([expression])}
        api(person, "PATCH", f"/api/annotations/{number}/", body)


def events(pulled: Pulled) -> list[tuple[int, str, str]]:
    order = ["annotation_id", "pulled_at", "created_at"]
    rows = pulled.events.sort(order).iter_rows(named=True)
    return [(row["annotation_id"], row["event"], *row["answer"]["expressions"]) for row in rows]


def settled(desk: Desk, root: Path) -> dict[int, str]:
    """Return the answers that stand on the server and in the log."""
    assert desk.pull().events.is_empty()
    assert desk.pull(whole=True).events.is_empty()
    home = Home.at(root / "settled")
    tables.write(home, "annotations", desk.known, part="one")
    found = views.query(home, "SELECT annotation_id, answer FROM own_answers ORDER BY ALL")
    standing = {number: given["expressions"] for number, given in found.iter_rows()}
    assert standing == desk.standing()
    on_server = {
        each["id"]: each["result"]
        for task in desk.client.tasks(desk.id, include="id,annotations,result")
        for each in task["annotations"]
    }
    assert on_server == {number: result_of(given) for number, given in standing.items()}
    return {number: given[0] for number, given in standing.items()}


@pytest.mark.parametrize(
    ("same_face", "same_person"),
    [
        (False, False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((False, True), (True, False), (True, True))
        ),
    ],
)
def test_pull__numbers_given_again(
    desk: Desk, copy: Callable[[], Copy], tmp_path: Path, *, same_face: bool, same_person: bool
) -> None:
    stays = desk.vote(0, 0, "neutral")
    desk.pull()
    older = copy()
    old = [desk.vote(1, face, "fear") for face in (1, 2)]
    desk.pull()
    older.put_back()
    new = [
        desk.vote(1 if same_person else 2, face, "anger")
        for face in ((1, 2) if same_face else (3, 0))
    ]
    assert new == old
    found = desk.pull()
    assert events(found) == [
        row for n in old for row in [(n, "deleted", "fear"), (n, "created", "anger")]
    ]
    gone = found.events.filter(pl.col("event") == "deleted")
    first = desk.known.filter(
        (pl.col("event") == "created") & pl.col("task_id").is_in(gone["task_id"].implode())
    )
    assert set(gone["created_at"]) <= set(first["created_at"])
    assert set(gone["rater_id"]) == {desk.voters[1].rater_id}
    assert (found.n_deleted, found.n_reused, found.n_older, found.n_returned) == (2, 2, 0, 0)
    assert "2 numbers belong to other votes now" in found.restored
    assert settled(desk, tmp_path) == {stays: "neutral", **dict.fromkeys(new, "anger")}


@pytest.mark.slow
def test_pull__copy_older_by_several_pulls(
    desk: Desk, copy: Callable[[], Copy], tmp_path: Path
) -> None:
    older = copy()
    for face, expression in enumerate(["fear", "anger", "disgust", "sadness"]):
        number = desk.vote(0, face, expression)
        desk.pull()
    edit(desk, 0, number, "happiness")
    desk.pull()
    older.put_back()
    new = desk.vote(2, 3, "surprise")
    found = desk.pull()
    assert sorted(row[1:] for row in events(found)) == [
        ("created", "surprise"), ("deleted", "anger"), ("deleted", "disgust"), ("deleted", "fear"),
        ("deleted", "happiness"),
    ]  # fmt: skip
    assert (found.n_deleted, found.n_reused) == (4, 1)
    assert settled(desk, tmp_path) == {new: "surprise"}


def test_pull__edit_goes_back_and_is_made_again(
    desk: Desk, copy: Callable[[], Copy], tmp_path: Path
) -> None:
    number, other = desk.vote(0, 0, "fear"), desk.vote(1, 1, "neutral")
    older = copy()
    edit(desk, 0, number, "anger")
    desk.pull()
    older.put_back()
    # As many votes as before.
    found = desk.pull()
    assert events(found) == [(number, "deleted", "anger"), (number, "created", "fear")]
    assert (found.n_older, found.n_deleted, found.n_reused) == (1, 0, 0)
    assert settled(desk, tmp_path / "back") == {number: "fear", other: "neutral"}
    edit(desk, 0, number, "sadness")
    again = desk.pull()
    assert events(again) == [(number, "updated", "sadness")]
    assert again.restored == ""
    assert settled(desk, tmp_path / "again") == {number: "sadness", other: "neutral"}


@pytest.mark.slow
def test_pull__deleted_vote_returns(desk: Desk, copy: Callable[[], Copy], tmp_path: Path) -> None:
    number = desk.vote(0, 0, "fear")
    other = desk.vote(1, 1, "neutral")
    older = copy()
    edit(desk, 0, number, "anger")
    desk.pull()
    with desk.sitting(0) as ada:
        api(ada, "DELETE", f"/api/annotations/{number}/")
    assert desk.pull().restored == ""
    older.put_back()
    found = desk.pull()
    assert events(found) == [(number, "created", "fear")]
    assert "1 deleted votes are there again" in found.restored
    assert settled(desk, tmp_path) == {number: "fear", other: "neutral"}


def test_pull__as_many_votes_are_lost_as_return(
    desk: Desk, copy: Callable[[], Copy], tmp_path: Path
) -> None:
    """Counts agree, and no task is newer than the last pull."""
    back = desk.vote(0, 0, "fear")
    desk.pull()
    older = copy()
    desk.vote(1, 1, "anger")
    with desk.sitting(0) as ada:
        api(ada, "DELETE", f"/api/annotations/{back}/")
    desk.pull()
    older.put_back()
    found = desk.pull()
    assert sorted(row[1:] for row in events(found)) == [("created", "fear"), ("deleted", "anger")]
    assert settled(desk, tmp_path) == {back: "fear"}


@pytest.mark.slow
def test_pull__tasks_given_again(desk: Desk, copy: Callable[[], Copy], tmp_path: Path) -> None:
    """Task and vote have the numbers of others, which were about another face."""

    def task_of(face: str) -> int:
        task = {"data": {"face_id": face, "crop": "", "context": "", "reason": ""}}
        return desk.client.import_tasks(desk.id, [task])[0]

    desk.pull()
    older = copy()
    desk.tasks[desk.face_ids[0]] = first = task_of("old-face")
    number = desk.vote(0, 0, "fear")
    desk.pull()
    older.put_back()
    assert task_of("new-face") == first
    assert desk.vote(0, 0, "fear") == number
    found = desk.pull()
    assert found.events.sort("pulled_at", "created_at").select("event", "face_id").rows() == [
        ("deleted", "old-face"), ("created", "new-face"),
    ]  # fmt: skip
    assert settled(desk, tmp_path) == {number: "fear"}


@pytest.mark.slow
def test_pull__vote_put_in_another_name(desk: Desk, studio: Studio, tmp_path: Path) -> None:
    number = desk.vote(0, 0, "fear")
    desk.pull()
    path = studio.home.studio / "data" / installation.DATABASE
    with desk.sitting(1) as ben:
        api(ben, "PATCH", f"/api/annotations/{number}/", {"result": result_of(["anger"])})
    with closing(sqlite3.connect(path)) as connection, connection:
        row = (desk.voters[1].user_id, number)
        connection.execute("UPDATE task_completion SET completed_by_id = ? WHERE id = ?", row)
    assert events(desk.pull()) == [(number, "deleted", "fear"), (number, "created", "anger")]
    assert settled(desk, tmp_path) == {number: "anger"}
    assert desk.known["rater_id"].to_list() == [desk.voters[who].rater_id for who in (0, 0, 1)]


def stamp(desk: Desk, number: int, when: datetime) -> None:
    path = desk.studio.home.studio / "data" / installation.DATABASE
    text = when.strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(path)) as connection, connection:
        task = "(SELECT task_id FROM task_completion WHERE id = ?)"
        connection.execute(f"UPDATE task SET updated_at = ? WHERE id = {task}", (text, number))
        connection.execute("UPDATE task_completion SET updated_at = ? WHERE id = ?", (text, number))


@pytest.mark.slow
def test_pull__edit_under_a_clock_set_back(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit may be stamped before the answer that it replaces."""
    early, late = desk.vote(0, 0, "fear"), desk.vote(1, 1, "neutral")
    desk.pull()
    edit(desk, 0, early, "anger")
    clock = datetime.now(UTC) - timedelta(days=2)
    stamp(desk, early, clock)
    assert desk.pull().events.is_empty()
    monkeypatch.setattr(LabelStudioClient, "server_time", clock)
    assert events(desk.pull()) == [(early, "deleted", "fear"), (early, "created", "anger")]
    assert settled(desk, tmp_path) == {early: "anger", late: "neutral"}


@pytest.mark.slow
def test_pull__older_table_without_the_deletion(desk: Desk, tmp_path: Path) -> None:
    """Older versions wrote a number's next vote as a change of it."""
    number = desk.vote(0, 0, "fear")
    new = desk.pull().events
    old = new.with_columns(
        created_at=pl.col("created_at") + pl.duration(seconds=1), task_id=pl.lit(1, pl.Int64),
        rater_id=pl.lit("person-gone"), pulled_at=pl.col("pulled_at") - pl.duration(days=1),
    )  # fmt: skip
    desk.known = pl.concat([old, new.with_columns(event=pl.lit("updated"))])
    assert events(desk.pull()) == [(number, "deleted", "fear")]
    assert settled(desk, tmp_path) == {number: "fear"}


def test_pull__another_project_of_the_same_id(desk: Desk) -> None:
    """Its clock was set back, so it seems older than the votes."""
    desk.vote(0, 0, "fear")
    created: datetime = desk.client.sdk.projects.get(desk.id).created_at
    desk.pull(project_created_at=created)
    with pytest.raises(StudioError, match="is not the one whose votes are in the tables"):
        desk.pull(project_created_at=created - timedelta(days=1))


@pytest.mark.slow
def test_push_and_pull__another_project_of_the_same_id(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(1)
    (number,) = made.push().tasks
    note = made.home.studio / f"project-{number}-created"
    created: datetime = client.sdk.projects.get(number).created_at
    assert dict(projects.noted_projects(made.home))[number] == created
    vote(voters[0], client, offered(client, number)[made.face_ids[0]], "fear")
    note.write_text("2020-01-01T00:00:00+00:00")
    with pytest.raises(StudioError, match=f"Project {number} .* is not the one"):
        made.push()
    assert isinstance(made.pull()[number], StudioError)
    assert not tables.parts(made.home, "annotations")
    note.unlink()
    pulled = made.pull()[number]
    assert not isinstance(pulled, StudioError)
    assert pulled.n_standing == 1
    assert note.exists()
