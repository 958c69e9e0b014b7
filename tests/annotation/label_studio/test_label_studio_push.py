"""Every face gets one task, also if a push is repeated or interrupted."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import psutil
import pytest

from annotation.label_studio import projects, server
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.tasks import PushResult, shuffle_positions
from tests.annotation.label_studio.conftest import Board, Studio, api, faces, push
from tests.annotation.label_studio.cutting import wire
from warehouse.errors import StudioError
from warehouse.storage.home import Home

pytestmark = pytest.mark.studio

MakeBoard = Callable[[int], Board]


def tasks_per_face(client: LabelStudioClient, project_id: int) -> Counter[str]:
    tasks = client.tasks(project_id, include="id,data", task_only=True)
    return Counter(task["data"]["face_id"] for task in tasks)


def test_push__one_task_per_face(board: MakeBoard) -> None:
    made = board(12)
    reported: list[tuple[int, int]] = []
    first = push(made.client, made.id, made.faces.head(8))
    assert (first.new, first.known) == (8, 0)
    both = push(made.client, made.id, made.faces, progress=lambda *n: reported.append(n))
    assert (both.new, both.known) == (4, 8)
    assert {face: both.task_ids[face] for face in first.task_ids} == first.task_ids
    assert reported == [(8, 12), (12, 12)]
    again = push(made.client, made.id, made.faces)
    assert (again.new, again.known, again.task_ids) == (0, 12, both.task_ids)
    assert tasks_per_face(made.client, made.id) == Counter(made.face_ids)


def test_push__task_data_without_prediction(board: MakeBoard) -> None:
    made = board(1)
    (number,) = push(made.client, made.id, made.faces).task_ids.values()
    task = api(made.client, "GET", f"/api/tasks/{number}/")
    row = made.faces.row(0, named=True)
    assert task["data"] == {
        "face_id": row["face_id"],
        "crop": f"/data/local-files/?d={row['crop']}",
        "context": f"/data/local-files/?d={row['context']}",
        "reason": "coverage",
        **shuffle_positions(row["face_id"]),
    }
    assert task["predictions"] == []
    assert task["overlap"] == 3


def test_push__no_faces_and_repeated_faces(board: MakeBoard) -> None:
    made = board(3)
    assert push(made.client, made.id, made.faces.clear()) == PushResult(tasks={made.id: 0})
    twice = pl.concat([made.faces, made.faces.with_columns(reason=pl.lit("audit"))])
    assert push(made.client, made.id, twice).new == 3
    tasks = made.client.tasks(made.id, include="id,data", task_only=True)
    assert [task["data"]["reason"] for task in tasks] == ["coverage"] * 3


def test_push__ignores_manual_tasks(board: MakeBoard) -> None:
    made = board(2)
    empty = {"crop": "", "context": ""}
    by_hand = [{"data": empty}, {"data": empty | {"face_id": 7}}]
    api(made.client, "POST", f"/api/projects/{made.id}/import", by_hand)
    assert push(made.client, made.id, made.faces).new == 2
    assert push(made.client, made.id, made.faces).new == 0


def test_push__two_at_once_make_no_duplicates(board: MakeBoard, studio: Studio) -> None:
    made = board(150)

    def run(_: int) -> PushResult:
        with LabelStudioClient(studio.address) as client:
            return push(client, made.id, made.faces)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, range(2))
    assert sorted((one.new, two.new)) == [0, 150]
    assert one.task_ids == two.task_ids
    assert tasks_per_face(made.client, made.id) == Counter(made.face_ids)


def test_push__lost_response_is_not_repeated(board: MakeBoard, studio: Studio) -> None:
    """The server stores the tasks, the answer never arrives."""
    made = board(20)
    with (
        wire(studio.address.url, cut_at=b"/import?") as through,
        LabelStudioClient(
            dataclasses.replace(studio.address, url=through.url), retry_for_s=5
        ) as client,
    ):
        pushed = push(client, made.id, made.faces)
        assert through.cuts == 1
    assert pushed.new == 20
    assert tasks_per_face(made.client, made.id) == Counter(made.face_ids)
    assert push(made.client, made.id, made.faces).task_ids == pushed.task_ids


def test_push__names_a_deleted_project(board: MakeBoard) -> None:
    made = board(1)
    api(made.client, "DELETE", f"/api/projects/{made.id}/")
    with pytest.raises(StudioError, match=r"HTTP 404.*risorius label push"):
        push(made.client, made.id, made.faces)


@pytest.mark.slow
def test_push__server_killed_in_an_import(fresh_home: Home) -> None:
    """KILL while the second chunk is on its way; up again, push again."""
    address = server.up(fresh_home.studio, fresh_home.media)
    family = [psutil.Process(address.pid), *psutil.Process(address.pid).children(recursive=True)]

    def kill() -> None:
        for process in reversed(family):
            process.kill()

    def when_the_first_chunk_is_in(done: int, _: int) -> None:
        if done == 500:
            threading.Timer(0.1, kill).start()

    everything = faces(fresh_home, 2000)
    title = {"title": "killed", "wanted_votes": 3, "media_dir": fresh_home.media}
    with LabelStudioClient(address, retry_for_s=1) as client:
        made = projects.ensure_project(client, **title)
        with pytest.raises(StudioError, match="risorius studio up"):
            push(client, made.id, everything, progress=when_the_first_chunk_is_in)
    again = server.up(fresh_home.studio, fresh_home.media)
    assert again.started
    assert again.url == address.url
    with LabelStudioClient(again) as client:
        assert projects.ensure_project(client, **title) == made
        pushed = push(client, made.id, everything)
        assert pushed.known >= 500
        assert pushed.new + pushed.known == 2000
        assert client.counts(made.id) == (2000, 0)
        assert tasks_per_face(client, made.id) == Counter(everything["face_id"].to_list())
