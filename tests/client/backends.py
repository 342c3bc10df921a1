"""Real HTTP servers that answer, fail, hang or hang up as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Seen(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Backend:
    """One instance's server. `hold` makes it wait, before its answer or in the middle of it, until `release`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.status = 200
        self.hangs_up = self.breaks_off = self.speaks_nonsense = False
        self.hold_before = self.hold_within = False
        self.release = threading.Event()
        self.connections = 0
        self.closed = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"backend": self}))
        self.server.daemon_threads = True
        self.server.block_on_close = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    backend: Backend
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.backend.connections += 1
        try:
            super().handle()
        except ConnectionError:
            """The client hung up."""
        finally:
            self.backend.closed += 1

    def _answer(self) -> None:
        backend = self.backend
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        backend.seen.append(Seen(self.command, self.path, headers, body))
        if backend.hold_before:
            backend.release.wait(20)
        if backend.hangs_up or backend.speaks_nonsense:
            if backend.speaks_nonsense:
                self.wfile.write(b"good day to you\r\n\r\n")
            self.close_connection = True
            return
        self.send_response(backend.status)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"first")
        if backend.hold_within:
            backend.release.wait(20)
        if backend.breaks_off:
            self.close_connection = True
            return
        self.wfile.write(b"again")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def backends(count: int) -> Iterator[list[Backend]]:
    started = [Backend() for _ in range(count)]
    for each in started:
        threading.Thread(target=each.server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield started
    finally:
        for each in started:
            each.release.set()
            each.server.shutdown()
            each.server.server_close()
