"""Serve bytes with ranges and ETags on loopback; fail on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """Content of the server, and the requests it received.

    Attributes:
        files: path to bytes.
        faults: taken one per request: a status to answer with, or how many bytes until it hangs up.
        marked: send ETags.
        together: answers wait here for each other.
        asked: per request its path, ``Range`` and the status of the answer.
        given: per request its query and ``Authorization``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, int]] = field(default_factory=list)
    marked: bool = True
    together: threading.Barrier | None = None
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    given: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving() -> Iterator[Served]:
    """Start the server; yield its state with its URL."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (path, _, query), fault = self.path.partition("?"), None
            served.given.append((query, self.headers.get("Authorization")))
            if served.together is not None:
                served.together.wait()
            if served.faults:
                fault = served.faults.pop(0)
            body = served.files.get(path)
            span = self.headers.get("Range")
            status, start = 200, 0
            if fault and fault[0] == "status":
                status, body = fault[1], b"no"
            elif body is None:
                status, body = 404, b""
            else:
                mark = f'"{sha256(body).hexdigest()[:8]}"'
                if served.marked and self.headers.get("If-None-Match") == mark:
                    status, body = 304, b""
                found = re.fullmatch(r"bytes=(\d+)-", span or "")
                if found and served.marked and self.headers.get("If-Range") == mark:
                    status, start = 206, int(found[1])
                    if start >= len(body):
                        status, body, start = 416, b"", 0
            served.asked.append((path, span, status))
            self.send_response(status)
            if served.marked and status in (200, 206):
                self.send_header("ETag", mark)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            rest = body[start:]
            if fault and fault[0] == "cut":
                rest = rest[: fault[1]]
                self.close_connection = True
            self.wfile.write(rest)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # A client may close the connection early.
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
