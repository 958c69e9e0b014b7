"""The webhook signals each vote, only with the right secret."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from annotation.label_studio.answers import result_of
from annotation.label_studio.client import Address, LabelStudioClient
from annotation.label_studio.users import Account
from annotation.label_studio.webhook import listening
from tests.annotation.label_studio.conftest import Board, api, push

pytestmark = pytest.mark.studio


def hooks(client: LabelStudioClient) -> list[dict]:
    return [hook for hook in api(client, "GET", "/api/webhooks/") if "risorius" in hook["url"]]


def test_watch__signals_vote_edit_and_deletion(
    board: Callable[[int], Board], voters: list[Account]
) -> None:
    made = board(1)
    (task,) = push(made.client, made.id, made.faces).task_ids.values()
    rung = threading.Event()
    with (
        LabelStudioClient(voters[0].address(made.client.url)) as ada,
        listening(made.client, lambda: [made.id], on_change=rung.set) as bell,
    ):
        assert bell.connected
        body = {"result": result_of(["fear"])}
        number = api(ada, "POST", f"/api/tasks/{task}/annotations/", body)["id"]
        assert bell.wait(20)
        assert rung.is_set()
        api(ada, "PATCH", f"/api/annotations/{number}/", {"result": result_of(["anger"])})
        assert bell.wait(20)
        api(ada, "DELETE", f"/api/annotations/{number}/")
        assert bell.wait(20)
        assert not bell.wait(0.01)
    assert hooks(made.client) == []


def test_watch__requires_the_secret_on_loopback(
    client: LabelStudioClient, board: Callable[[int], Board]
) -> None:
    made = board(1)
    with listening(client, lambda: [made.id]) as bell:
        (hook,) = hooks(client)
        parts = urlsplit(hook["url"])
        assert parts.hostname == "127.0.0.1"
        secret = hook["headers"]
        assert httpx.post(hook["url"], json={}).status_code == 404
        assert httpx.post(hook["url"] + "/x", headers=secret, json={}).status_code == 404
        wrong = dict.fromkeys(secret, "guess")
        assert httpx.post(hook["url"], headers=wrong, json={}).status_code == 404
        assert bell.n_calls == 0
        assert httpx.post(hook["url"], headers=secret, json={}).status_code == 204
        assert bell.wait(10)  # it answers first, so that a rater's submit need not wait for it
        assert bell.n_calls == 1


def test_watch__removes_webhooks_of_killed_processes(
    client: LabelStudioClient, board: Callable[[int], Board]
) -> None:
    number = board(1).id
    with listening(client, lambda: [number]) as first:
        (alive,) = hooks(client)
        dead = {
            "project": number, "url": alive["url"].replace(str(urlsplit(alive["url"]).port), "9"),
            "headers": alive["headers"], "send_for_all_actions": False,
            "actions": ["ANNOTATION_CREATED"],
        }  # fmt: skip
        api(client, "POST", "/api/webhooks/", dead)
        with listening(client, lambda: [number]) as second:
            urls = [hook["url"] for hook in hooks(client)]
            assert len(urls) == 2
            assert alive["url"] in urls
        assert (first.connected, second.connected) == (True, True)


def test_watch__unreachable_server_never_signals() -> None:
    away = LabelStudioClient(Address(url="http://127.0.0.1:9", token="t" * 40), retry_for_s=0.1)
    with away, listening(away, lambda: [1]) as bell:
        assert not bell.connected
        assert not bell.wait(0.01)


def test_watch__includes_new_projects(
    client: LabelStudioClient, board: Callable[[int], Board], voters: list[Account]
) -> None:
    numbers: list[int] = []
    with listening(client, lambda: [*numbers], refresh_s=0.1) as bell:
        assert not bell.connected
        made = board(1)
        (task,) = push(made.client, made.id, made.faces).task_ids.values()
        numbers += [made.id]
        deadline = time.monotonic() + 30
        while not bell.connected and time.monotonic() < deadline:
            time.sleep(0.05)
        with LabelStudioClient(voters[0].address(client.url)) as ada:
            api(ada, "POST", f"/api/tasks/{task}/annotations/", {"result": result_of(["fear"])})
        assert bell.wait(20)
        assert len(hooks(client)) == 1
    assert hooks(client) == []
