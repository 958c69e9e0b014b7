"""The server dies or refuses during push and pull; a re-run is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import psutil
import pytest

from annotation.label_studio import projects, server, users
from annotation.label_studio.answers import result_of
from annotation.label_studio.client import Address, LabelStudioClient
from annotation.label_studio.users import Account
from tests.annotation.label_studio.conftest import Board, Studio, api, faces, pull, push
from warehouse.errors import StudioError
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

pytestmark = pytest.mark.studio

NONE = TABLES["annotations"].empty()


def named(user_id: int, email: str) -> tuple[str, str]:
    return f"person-{user_id:08x}", "person"


class Mortal(LabelStudioClient):
    """Kills the server when it has read ``after`` pages of tasks."""

    def __init__(self, address: Address, *, after: int) -> None:
        super().__init__(address, retry_for_s=1)
        root = psutil.Process(address.pid)
        self._family, self._left = [root, *root.children(recursive=True)], after

    def _get(self, path: str, **params: Any) -> Any:
        if params.get("fields") == "all":
            self._left -= 1
            if self._left < 0:
                for process in reversed(self._family):
                    process.kill()
                psutil.wait_procs(self._family, timeout=10)
                self._left = 10**6
        return super()._get(path, **params)


def with_votes(client: LabelStudioClient, project_id: int, count: int, raters: list[int]) -> None:
    """``count`` tasks, imported with a vote of each rater."""
    for start in range(0, count, 250):
        tasks = [
            {
                "data": {"face_id": f"voted-{number}", "crop": "", "context": "", "reason": ""},
                "annotations": [
                    {"completed_by": rater, "ground_truth": False,
                     "result": result_of([EXPRESSIONS[(number + rater) % 8]])}
                    for rater in raters
                ],
            }
            for number in range(start, min(count, start + 250))
        ]  # fmt: skip
        api(client, "POST", f"/api/projects/{project_id}/import?commit_to_project=true", tasks)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_push_and_pull__server_killed_midway(
    fresh_home: Home,
) -> None:
    def up() -> Address:
        return server.up(fresh_home.studio, fresh_home.media)

    address, everything = up(), faces(fresh_home, 1000)
    given = {"wanted_votes": 5, "media_dir": fresh_home.media}
    with LabelStudioClient(address) as client:
        raters = [users.add(client, fresh_home, f"r{n}@example.org").user_id for n in range(5)]
        pushed = projects.ensure_project(client, title="pushed", **given).id
        voted = projects.ensure_project(client, title="voted", **given).id
        with_votes(client, voted, 1000, raters)
    with Mortal(address, after=10**6) as client:

        def die(done: int, _: int) -> None:
            if done == 500:
                client._left = 0
                with pytest.raises(StudioError):
                    client._get("api/tasks/", project=pushed, fields="all")

        with pytest.raises(StudioError, match="risorius studio up"):
            push(client, pushed, everything, progress=die)
    with Mortal(up(), after=1) as client, pytest.raises(StudioError, match="risorius studio up"):
        pull(client, voted, known=NONE, rater_of=named, now=datetime.now(UTC))
    with LabelStudioClient(up()) as client:
        done = push(client, pushed, everything)
        assert (done.known, done.new) == (500, 500)
        tasks = client.tasks(pushed, include="id,data", task_only=True)
        assert Counter(task["data"]["face_id"] for task in tasks) == Counter(
            everything["face_id"].to_list()
        )
        pulled = pull(client, voted, known=NONE, rater_of=named, now=datetime.now(UTC))
        assert pulled.complete
        assert pulled.events.height == 5000
        assert pulled.events.select("face_id", "rater_id").n_unique() == 5000
        again = pull(client, voted, known=pulled.events, rater_of=named, now=datetime.now(UTC))
        assert again.events.is_empty()


@pytest.fixture
def office_worker(studio: Studio, client: LabelStudioClient) -> Account:
    return users.add(client, studio.home, "worker@example.org")


def test_pull__revoked_token_is_named(
    board: Callable[[int], Board], voters: list[Account], office_worker: Account
) -> None:
    made = board(2)
    tasks = list(push(made.client, made.id, made.faces).task_ids.values())

    def vote(task: int) -> None:
        with LabelStudioClient(voters[0].address(made.client.url)) as ada:
            api(ada, "POST", f"/api/tasks/{task}/annotations/", {"result": result_of(["fear"])})

    def pulled(client: LabelStudioClient, known: pl.DataFrame) -> pl.DataFrame:
        return pull(client, made.id, known=known, rater_of=named, now=datetime.now(UTC)).events

    vote(tasks[0])
    with LabelStudioClient(office_worker.address(made.client.url), retry_for_s=1) as worker:
        first = pulled(worker, NONE)
        token = api(worker, "POST", "/api/current-user/reset-token/")["token"]
        vote(tasks[1])
        with pytest.raises(StudioError, match=r"HTTP 401") as refused:
            pulled(worker, first)
        assert office_worker.token not in str(refused.value)
        with pytest.raises(StudioError, match=r"HTTP 401"):
            push(worker, made.id, made.faces)
    with LabelStudioClient(Address(made.client.url, token)) as again:
        second = pulled(again, first)
        assert push(again, made.id, made.faces).new == 0
    assert (first.height, second.height) == (1, 1)
    assert set(second["task_id"]) == {tasks[1]}
