"""Proxy before the S3 server of the tests that checks access keys.

The server itself accepts any key.

It knows access keys by name, each with the prefixes it may read and list, as a policy would say.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_KEY = re.compile(r"Credential=([^/&]+)/")


@dataclass
class AccessProxy:
    """Where it is, and who may read below which paths (``bucket/prefix/``)."""

    url: str = ""
    readers: dict[str, str] = field(default_factory=dict)
    cross_origin: bool = True
    passed: list[str] = field(default_factory=list)


@contextmanager
def access_proxy(target_url: str) -> Iterator[AccessProxy]:
    """Yield a proxy to ``target_url`` that refuses every key at first."""
    target, proxy = urlsplit(target_url), AccessProxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            who = _KEY.search(self.headers.get("Authorization") or unquote(self.path))
            parts = urlsplit(self.path)
            asked = unquote(parts.path).lstrip("/")
            if "/" not in asked.rstrip("/"):
                asked = f"{asked.rstrip('/')}/{parse_qs(parts.query).get('prefix', [''])[0]}"
            below = proxy.readers.get(who[1]) if who else None
            if below is None or not asked.startswith(below):
                self._answer(403, {"Content-Type": "application/xml"}, _REFUSAL)
                return
            proxy.passed.append(asked)
            link = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
            wanted = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            link.request("GET", self.path, headers=wanted)
            came = link.getresponse()
            kept = {
                name: value
                for name, value in came.getheaders()
                if name.lower() not in ("connection", "content-length", "transfer-encoding")
                and (proxy.cross_origin or not name.lower().startswith("access-control"))
            }
            self._answer(came.status, kept, came.read())
            link.close()

        def _answer(self, code: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


_REFUSAL = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)
