"""Failures become one clear sentence; reads are retried, writes not."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from annotation.label_studio.client import Address, LabelStudioClient, LostAnswerError, connect
from tests.annotation.label_studio.conftest import Studio, api, push
from warehouse.errors import StudioError

pytestmark = pytest.mark.studio


def personal_token(studio: Studio, *, expires: float, secret: str | None = None) -> str:
    """Return a personal access token, signed with the server's secret."""
    lines = (studio.home.studio / "data" / ".env").read_text().splitlines()
    keys = dict(line.split("=", 1) for line in lines if "=" in line)
    secret = secret or keys["SECRET_KEY"].strip("'\"")
    body = {"token_type": "refresh", "exp": int(expires), "iat": 1, "jti": "a" * 32, "user_id": 1}

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}"
    signed += f".{part(json.dumps(body).encode())}"
    signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{part(signature)}"


def real_personal_token(studio: Studio) -> str:
    """Made on the account page, as a person would."""
    account = json.loads((studio.home.studio / "credentials.json").read_text())
    with httpx.Client(base_url=studio.address.url) as browser:
        browser.get("/user/login/")
        form = {key: account[key] for key in ("email", "password")}
        form |= {"csrfmiddlewaretoken": browser.cookies["csrftoken"], "persist_session": "on"}
        referer = {"Referer": studio.address.url}
        browser.post("/user/login/", data=form, headers=referer)
        headers = referer | {"X-CSRFToken": browser.cookies["csrftoken"]}
        return browser.post("/api/token/", headers=headers).json()["token"]


def revoke(studio: Studio, token: str) -> None:
    with LabelStudioClient(studio.address) as client:
        api(client, "POST", "/api/token/blacklist/", {"refresh": token})


def test_client__personal_token_until_revoked(studio: Studio) -> None:
    token = real_personal_token(studio)
    personal = dataclasses.replace(studio.address, token=token)
    with connect(personal) as client:
        assert client.sdk.users.whoami().id == 1
        # The access token it bought runs out after minutes; a spent one looks like this.
        client.sdk._client_wrapper._tokens_client._access_token = "spent"
        assert client.sdk.users.whoami().id == 1
    revoke(studio, token)
    with pytest.raises(StudioError, match=r"HTTP 401.*blacklisted") as refused:
        connect(personal)
    assert "LABEL_STUDIO_API_KEY" in refused.value.hint


@pytest.mark.parametrize("kind", ["wrong", "expired", "forged"])
def test_client__rejected_token_is_not_shown(studio: Studio, kind: str) -> None:
    token = {
        "wrong": "0f" * 20,
        "expired": personal_token(studio, expires=time.time() - 60),
        "forged": personal_token(studio, expires=time.time() + 60, secret="guess"),
    }[kind]
    said = {"wrong": "HTTP 401.*Invalid token", "expired": "expired", "forged": "HTTP 401.*invalid"}
    with pytest.raises(StudioError, match=said[kind]) as refused:
        connect(dataclasses.replace(studio.address, token=token))
    assert "make a new one" in refused.value.hint
    assert token not in str(refused.value)


def test_client__unreachable_server_has_a_hint() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(StudioError, match=r"answer at .*ConnectError.*risorius studio up") as down:
        connect(Address(url=url, token="5ecret" * 6), retry_for_s=0.5)
    assert "5ecret" not in str(down.value)


def test_client__names_what_does_not_exist(client: LabelStudioClient) -> None:
    with pytest.raises(StudioError, match="no project 99999"):
        client.counts(99999)
    with pytest.raises(StudioError, match=r"HTTP 404 for GET /api/projects/99999/"):
        client.sdk.projects.get(99999)
    with pytest.raises(StudioError, match=r"HTTP 404 for POST .*/import: 404 \| Label Studio"):
        api(client, "POST", "/api/projects/99999/import", [{"data": {}}])


def test_client__rejected_request_names_the_field(client: LabelStudioClient) -> None:
    with pytest.raises(StudioError, match=r"HTTP 400.*title.*at least 3 characters"):
        api(client, "POST", "/api/projects/", {"title": "x"})


class _Failing(http.server.BaseHTTPRequestHandler):
    """Answers 503 twice, then 200, and counts."""

    calls: list[str]

    def do_GET(self) -> None:
        self.calls.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(503 if len(self.calls) <= 2 else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"email": "a@b.org"}')

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def failing() -> Iterator[tuple[Address, list[str]]]:
    calls: list[str] = []
    handler = type("Handler", (_Failing,), {"calls": calls})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield Address(url=f"http://127.0.0.1:{one.server_address[1]}", token="t" * 40), calls
        one.shutdown()


def test_client__retries_reads(failing: tuple[Address, list[str]]) -> None:
    address, calls = failing
    with LabelStudioClient(address) as client:
        assert client.sdk.users.whoami().email == "a@b.org"
    assert calls == ["GET"] * 3


def test_client__does_not_retry_writes(failing: tuple[Address, list[str]]) -> None:
    address, calls = failing
    with LabelStudioClient(address) as client, pytest.raises(LostAnswerError, match="HTTP 503"):
        api(client, "POST", "/api/projects/", {})
    assert calls == ["POST"]


def test_tasks__paging_while_tasks_are_deleted(board) -> None:
    made = board(7)
    ids = list(push(made.client, made.id, made.faces).task_ids.values())
    seen = []
    for task in made.client.tasks(made.id, include="id", task_only=True, page_size=3):
        seen.append(task["id"])
        if len(seen) == 3:
            api(made.client, "DELETE", f"/api/tasks/{ids[0]}/")
    assert seen == ids


def test_media__local_pictures_need_a_login(studio: Studio, board) -> None:
    made = board(1)
    push(made.client, made.id, made.faces)
    path = f"/data/local-files/?d={made.faces['crop'][0]}"
    served = made.client.fetch(path)
    assert served.status_code == 200
    assert served.content == Path(studio.home.media / made.faces["crop"][0]).read_bytes()
    assert httpx.get(f"{studio.address.url}{path}").status_code == 401
    outside = made.client.fetch("/data/local-files/?d=../label-studio/credentials.json")
    assert not outside.is_success
    assert studio.address.token not in outside.text
