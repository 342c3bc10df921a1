"""A service that answers as fast as Python can: `python -m benchmarks.upstream <port> [<port> …]`."""

from __future__ import annotations

import asyncio
import sys

import uvloop

BODY = b'{"id": 7, "item": "a thing worth ordering", "count": 3, "ok": true}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        requests = (self.rest + data).split(b"\r\n\r\n")
        self.rest = requests[-1]
        self.transport.write(ANSWER * (len(requests) - 1))


async def main(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Upstream, "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main([int(port) for port in sys.argv[1:]]))
