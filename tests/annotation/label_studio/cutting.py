"""TCP proxy that passes bytes on and cuts at a chosen request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Wire:
    """Counts what it cut; ``url`` leads through it."""

    def __init__(self, target: str, cut_at: bytes, *, times: int) -> None:
        self._target, self._cut_at, self._left = urlsplit(target), cut_at, times
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(inner,), daemon=True).start()

    def _carry(self, inner: socket.socket) -> None:
        port = self._target.port
        with inner, socket.create_connection((self._target.hostname, port)) as outer:
            doomed = threading.Event()
            back = threading.Thread(target=self._answer, args=(outer, inner, doomed), daemon=True)
            back.start()
            while data := _receive(inner):
                if self._cut_at in data and self._left > 0:
                    self._left -= 1
                    doomed.set()
                outer.sendall(data)
            back.join(timeout=10)

    def _answer(self, outer: socket.socket, inner: socket.socket, doomed: threading.Event) -> None:
        while data := _receive(outer):
            if doomed.is_set():
                # The server has done its work and answers; the answer is lost.
                self.cuts += 1
                break
            try:
                inner.sendall(data)
            except OSError:
                return
        with suppress(OSError):
            inner.shutdown(socket.SHUT_RDWR)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 16)
    except OSError:
        return b""


@contextmanager
def wire(target: str, *, cut_at: bytes, times: int = 1) -> Iterator[Wire]:
    """Yield a proxy to ``target`` that cuts the connection.

    It cuts ``times`` times, after a request that contains ``cut_at``.
    """
    made = Wire(target, cut_at, times=times)
    try:
        yield made
    finally:
        made.close()
