"""A webhook as a hint to pull sooner. It is never the record: the server tries once, for a second,
and what it calls about is read from the server itself.
"""

from __future__ import annotations

import hmac
import http.server
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from annotation.label_studio.client import Client
from warehouse.errors import StudioError

_ACTIONS = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"]
_PATH = "/risorius-hint"
_SECRET = "X-Risorius-Hint"


@dataclass
class Bell:
    """Rings when something may have moved.

    Attributes:
        connected: the server knows where to call; else only the timeout of ``wait`` ends it.
        rings: how often it rang.
    """

    connected: bool = False
    rings: int = 0
    _rung: threading.Event = field(default_factory=threading.Event)

    def ring(self) -> None:
        self.rings += 1
        self._rung.set()

    def wait(self, timeout_s: float) -> bool:
        """True as soon as it rings, False after ``timeout_s``; rings meanwhile count as one."""
        rung = self._rung.wait(timeout_s)
        self._rung.clear()
        return rung


@contextmanager
def listening(
    client: Client,
    project_ids: Callable[[], Iterable[int]],
    *,
    on_ring: Callable[[], None] | None = None,
    look_s: float = 15,
) -> Iterator[Bell]:
    """Ask the server to call a receiver on this machine's loopback for as long as the block runs.

    A server that cannot or may not call loopback leaves the bell silent and everything else as it
    was. Only callers that know the secret made for this block ring it.

    Args:
        client: signed in to a server on this machine.
        project_ids: whose annotations ring; asked again every ``look_s`` seconds, for the server
            takes webhooks of single projects only, and projects may be made meanwhile.
        on_ring: called in the receiver's thread at every ring; must be quick, for a rater's
            submit waits for it.
    """
    bell, secret = Bell(), secrets.token_urlsafe(24)

    def rung() -> None:
        bell.ring()
        if on_ring is not None:
            on_ring()

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(secret, rung))
    hooks, closed = _Hooks(client, receiver.server_address[1], secret), threading.Event()

    def follow() -> None:
        while not closed.wait(look_s):
            with suppress(StudioError):
                hooks.cover(project_ids())
                bell.connected = bool(hooks.of)

    threads = [
        threading.Thread(target=work, daemon=True) for work in (receiver.serve_forever, follow)
    ]
    threads[0].start()
    try:
        with suppress(StudioError):
            _forget_dead(client)
            hooks.cover(project_ids())
        bell.connected = bool(hooks.of)
        threads[1].start()
        yield bell
    finally:
        closed.set()
        hooks.remove()
        receiver.shutdown()
        receiver.server_close()
        for thread in threads:
            if thread.ident is not None:
                thread.join(timeout=5)


class _Hooks:
    """The webhooks of one receiver, by project; none is made once they are removed."""

    def __init__(self, client: Client, port: int, secret: str) -> None:
        self.of: dict[int, int] = {}
        self._client, self._port, self._secret = client, port, secret
        self._lock, self._removed = threading.Lock(), False

    def cover(self, project_ids: Iterable[int]) -> None:
        for number in project_ids:
            with self._lock:
                if number not in self.of and not self._removed:
                    self.of[number] = _register(self._client, number, self._port, self._secret)

    def remove(self) -> None:
        with self._lock:
            self._removed = True
            for hook in self.of.values():
                with suppress(StudioError):
                    self._client.write("DELETE", f"/api/webhooks/{hook}/")


def _register(client: Client, project_id: int, port: int, secret: str) -> int:
    body = {
        "project": project_id,
        "url": f"http://127.0.0.1:{port}{_PATH}",
        "send_payload": False,
        "send_for_all_actions": False,
        "actions": _ACTIONS,
        "headers": {_SECRET: secret},
    }
    return client.write("POST", "/api/webhooks/", body)["id"]


def _forget_dead(client: Client) -> None:
    """Remove hooks left by killed processes; every submit would knock at their doors."""
    for hook in client.read("/api/webhooks/"):
        mine = hook["url"].endswith(_PATH) and _SECRET in (hook.get("headers") or {})
        if mine and not _answers(hook["url"]):
            client.write("DELETE", f"/api/webhooks/{hook['id']}/")


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1):
            return True
    except OSError:
        return False


def _handler(secret: str, rung: Callable[[], None]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            known = hmac.compare_digest(self.headers.get(_SECRET) or "", secret)
            self.send_response(204 if known and self.path == _PATH else 404)
            self.end_headers()
            if known and self.path == _PATH:
                rung()

        def log_message(self, *_: object) -> None:
            return

    return Handler
