"""A service that answers as fast as Python can: `python -m benchmarks.upstream <port>[:<ms>] [<port>[:<ms>] …]`.

With `:<ms>` an instance takes that long for each answer. `/64k` and `/10m` are answered with so many bytes, `/headers`
with the fields that came, bodies are read to their end, and `/echo` becomes a WebSocket that sends back what comes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
from typing import Final

import uvloop

SMALL: Final = b'{"id": 7, "item": "a thing worth ordering", "count": 3, "ok": true}'
SIZES: Final = {b"/64k": 64 << 10, b"/10m": 10 << 20}
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY: Final = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.IGNORECASE)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Upstream(asyncio.Protocol):
    def __init__(self, instance: int, delay: float) -> None:
        self._instance, self._delay = instance, delay
        self._answers = {path: self._answer(b"x" * size) for path, size in SIZES.items()}
        self._small = self._answer(SMALL)
        self._data = bytearray()
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._missing >= len(data):
            self._missing -= len(data)
            if not self._missing:
                self._say(self._small)
            return
        if self._missing:
            data, self._missing = data[self._missing :], 0
            self._say(self._small)
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end])
            del self._data[: end + 4]
            if key := _KEY.search(head):
                self._switch(key[1])
                return
            length = _LENGTH.search(head)
            body = int(length[1]) if length else 0
            if body > len(self._data):
                self._missing = body - len(self._data)
                self._data.clear()
                return
            del self._data[:body]
            self._say(self._of(head))

    def _of(self, head: bytes) -> bytes:
        path = head.split(b" ", 2)[1]
        if path == b"/headers":
            fields = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
            return self._answer(
                json.dumps({name.decode().lower(): value.decode() for name, _, value in fields}).encode()
            )
        return self._answers.get(path, self._small)

    def _say(self, answer: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self.transport.write, answer)
        else:
            self.transport.write(answer)

    def _answer(self, body: bytes) -> bytes:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-instance: %d\r\ncontent-length: %d\r\n\r\n"
        return head % (self._instance, len(body)) + body

    def _switch(self, key: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(head + b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept)
        self.transport.set_protocol(Echo(self.transport))


class Echo(asyncio.Protocol):
    """Sends each message back: short ones, in one frame each, which is all that the load sends."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        self._data += data
        answers = []
        while len(self._data) >= 2:
            size = self._data[1] & 0x7F
            if len(self._data) < size + 6:
                break
            mask = int.from_bytes(self._data[2:6] * (size // 4 + 1), "big")
            padded = bytes(self._data[6 : 6 + size]).ljust(4 * (size // 4 + 1), b"\0")
            plain = (int.from_bytes(padded, "big") ^ mask).to_bytes(len(padded), "big")[:size]
            answers.append(bytes((self._data[0], size)) + plain)
            closes = self._data[0] & 0x0F == 8
            del self._data[: size + 6]
            if closes:
                self._transport.write(b"".join(answers))
                self._transport.close()
                return
        self._transport.write(b"".join(answers))


async def main(instances: list[tuple[int, float]]) -> None:
    loop = asyncio.get_running_loop()
    for number, (port, delay) in enumerate(instances, 1):
        await loop.create_server(lambda n=number, d=delay: Upstream(n, d), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.Event().wait()


if __name__ == "__main__":
    given = [each.partition(":") for each in sys.argv[1:]]
    uvloop.run(main([(int(port), float(ms or 0) / 1000) for port, _, ms in given]))
