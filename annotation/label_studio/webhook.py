"""Receive a webhook of Label Studio as a signal to pull sooner.

The server calls once, with a timeout of one second. The webhook is therefore never the record:
annotations are always read from the server.
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

from annotation.label_studio.client import LabelStudioClient
from warehouse.errors import StudioError

_ACTIONS = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"]
_PATH = "/risorius-hint"
_SECRET = "X-Risorius-Hint"


@dataclass
class ChangeSignal:
    """Set when the server reports a change.

    Attributes:
        connected: the server knows the receiver; otherwise ``wait`` always times out.
        n_calls: calls received.
    """

    connected: bool = False
    n_calls: int = 0
    _event: threading.Event = field(default_factory=threading.Event)

    def set(self) -> None:
        """Record a call and end a ``wait``."""
        self.n_calls += 1
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Return True at the next call, or False after ``timeout_s``.

        Clears the signal.
        """
        called = self._event.wait(timeout_s)
        self._event.clear()
        return called


@contextmanager
def listening(
    client: LabelStudioClient,
    project_ids: Callable[[], Iterable[int]],
    *,
    on_change: Callable[[], None] = lambda: None,
    refresh_s: float = 15,
) -> Iterator[ChangeSignal]:
    """Have the server call a receiver on loopback while the block runs.

    If the server cannot call loopback, the signal is never set and nothing else changes. Only
    callers that know the secret of this block are accepted.

    Args:
        client: signed in to a server on this machine.
        project_ids: projects to watch, read again every ``refresh_s`` seconds. The server has
            webhooks of single projects only, and projects may be created meanwhile.
        on_change: called in the receiver's thread at every call. An annotator's submit waits
            for it.
    """
    signal, secret = ChangeSignal(), secrets.token_urlsafe(24)

    def called() -> None:
        signal.set()
        on_change()

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(secret, called))
    hooks, closed = _Hooks(client, receiver.server_address[1], secret), threading.Event()

    def watch_projects() -> None:
        while not closed.wait(refresh_s):
            with suppress(StudioError):
                hooks.register(project_ids())
                signal.connected = bool(hooks.by_project)

    receiving = threading.Thread(target=receiver.serve_forever, daemon=True)
    watching = threading.Thread(target=watch_projects, daemon=True)
    receiving.start()
    try:
        with suppress(StudioError):
            _delete_dead_hooks(client)
            hooks.register(project_ids())
        signal.connected = bool(hooks.by_project)
        watching.start()
        yield signal
    finally:
        closed.set()
        hooks.delete()
        receiver.shutdown()
        receiver.server_close()
        for thread in (receiving, watching):
            if thread.ident is not None:
                thread.join(timeout=5)


class _Hooks:
    """Webhooks of one receiver by project; none is created after ``delete``."""

    def __init__(self, client: LabelStudioClient, port: int, secret: str) -> None:
        self.by_project: dict[int, int] = {}
        self._client, self._port, self._secret = client, port, secret
        self._lock, self._deleted = threading.Lock(), False

    def register(self, project_ids: Iterable[int]) -> None:
        for number in project_ids:
            with self._lock:
                if number in self.by_project or self._deleted:
                    continue
                made = self._client.sdk.webhooks.create(
                    url=f"http://127.0.0.1:{self._port}{_PATH}",
                    project=number,
                    actions=_ACTIONS,
                    headers={_SECRET: self._secret},
                    send_payload=False,
                    send_for_all_actions=False,
                )
                self.by_project[number] = made.id or 0

    def delete(self) -> None:
        with self._lock:
            self._deleted = True
            for hook in self.by_project.values():
                with suppress(StudioError):
                    self._client.sdk.webhooks.delete(hook)


def _delete_dead_hooks(client: LabelStudioClient) -> None:
    """Delete webhooks of killed processes.

    The server would call them at every submit.
    """
    for hook in client.sdk.webhooks.list():
        mine = hook.url.endswith(_PATH) and _SECRET in (hook.headers or {})
        if mine and not _is_listening(hook.url):
            client.sdk.webhooks.delete(hook.id or 0)


def _is_listening(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1):
            return True
    except OSError:
        return False


def _handler(secret: str, called: Callable[[], None]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            known = hmac.compare_digest(self.headers.get(_SECRET) or "", secret)
            accepted = known and self.path == _PATH
            self.send_response(204 if accepted else 404)
            self.end_headers()
            if accepted:
                called()

        def log_message(self, *_: object) -> None:
            return

    return Handler
