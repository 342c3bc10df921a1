"""Real servers on loopback for health's tests, well-behaved and otherwise."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serve(handler: Handler, host: str = "127.0.0.1", **options: object) -> AsyncIterator[int]:
    """A TCP server that gives each connection to `handler`; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(run, host, 0, **options)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(data: bytes) -> Handler:
    """Reads the head of a request, then sends `data` and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return handle


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads and never says a word."""
    await reader.read()
    await asyncio.sleep(60)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with a TCP reset."""
    await reader.readuntil(b"\r\n\r\n")
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Switchable:
    """What a test server answers; change `status` while it runs."""

    def __init__(self) -> None:
        self.status = 200
        self.port = 0
        self.asked: list[str] = []


@contextmanager
def switchable_server() -> Iterator[Switchable]:
    """An HTTP server in a thread, for tests whose own thread is busy or whose checks run in another process."""
    switch = Switchable()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            switch.asked.append(self.path)
            self.send_response(switch.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    switch.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield switch
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
