"""An S3-compatible server on loopback, and a proxy that injects failures."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BUCKET = "faces"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Ignore AWS profiles of the account that runs the tests.
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """Yield the URL of a server in this process, with one empty bucket."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_DEFAULT_REGION"],
    )
    with suppress(client.exceptions.ClientError):
        client.create_bucket(Bucket=BUCKET)
    try:
        yield url
    finally:
        server.stop()


@dataclass
class Faults:
    """Calls received by a proxy, and failures injected by kind."""

    calls: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.failed.values())


KINDS = ("503", "500", "cut before", "cut after")
"""Refused, refused, connection cut before the call, response lost after the call."""


@contextmanager
def failing(url: str, *, share: float, seed: int = 0) -> Iterator[tuple[str, Faults]]:
    """Yield the URL of a proxy that fails a share of calls, and its counts."""
    target, chance, lock = urlsplit(url), random.Random(seed), threading.Lock()
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._body()
            with lock:
                faults.calls += 1
                # Random times, kinds in turn, so that a short run has every kind.
                kind = KINDS[faults.total % len(KINDS)] if chance.random() < share else None
                if kind:
                    faults.failed[kind] = faults.failed.get(kind, 0) + 1
            if kind in ("500", "503"):
                self._refuse(int(kind))
            elif kind == "cut before":
                self._cut()
            else:
                self._pass_on(body, lose=kind is not None)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_any  # noqa: N815

        def _body(self) -> bytes:
            # Otherwise the client waits a second before it sends the body.
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _refuse(self, code: int) -> None:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _cut(self) -> None:
            self.close_connection = True
            linger = struct.pack("ii", 1, 0)  # a reset, not an orderly close
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

        def _pass_on(self, body: bytes, *, lose: bool) -> None:
            skipped = ("transfer-encoding", "expect", "content-length", "connection")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
            link = http.client.HTTPConnection(target.hostname or "", target.port, timeout=300)
            try:
                link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    link.putheader(name, value)
                if body or self.command in ("PUT", "POST", "PATCH"):
                    link.putheader("Content-Length", str(len(body)))
                link.endheaders(body or None)
                answer = link.getresponse()
                content = answer.read()
            except OSError:
                self._refuse(502)
                return
            finally:
                link.close()
            if lose:
                self._cut()
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            return  # connections cut on purpose

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
