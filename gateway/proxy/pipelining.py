"""Requests that a client sends before the one at hand is answered: they wait as bytes, and few of these.

They are taken one after another, each when the answer before it is whole and the client takes what it is told
(RFC 9112 §9.3.2); beyond `ASIDE_LIMIT`, the client is not read meanwhile.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl

ASIDE_LIMIT: Final = 64 * 1024
"""Bytes of next requests that may wait, and one read more. Up to there, reading on tells when the client hangs up."""
END: Final = b"\r\n\r\n"
"""How a head ends; no other line end passes the parser."""
BEFORE_END: Final = len(END) - 1

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE).search


def seeming_end(data: bytes | bytearray) -> int:
    """Where the first request in these bytes seems to end, for whoever reads it to decide."""
    head = data.find(END) + len(END)
    if head < len(END):
        return len(data)
    length = _LENGTH(data, 0, head)
    return min(head + int(length[1]), len(data)) if length else head


class Flow(FlowControl):
    """Whether a client is read and takes its answers, with what was read of it too early."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.waiting = bytearray()

    def set_aside(self, data: bytes) -> None:
        self.waiting += data
        if len(self.waiting) > ASIDE_LIMIT:
            self.pause_reading()

    def put_back(self, data: bytes) -> None:
        """What came before all that waits."""
        self.waiting[:0] = data
        self.set_aside(b"")

    def take(self, size: int) -> bytes:
        """So many bytes of those that wait, and the client is read again if few are left."""
        data = bytes(self.waiting[:size])
        del self.waiting[:size]
        self.resume_reading()
        return data

    def resume_reading(self) -> None:
        if len(self.waiting) <= ASIDE_LIMIT:
            super().resume_reading()


class Chunks:
    """Where a chunked body ends, so that blank lines in it cost nothing. Whether it is one, the parser judges."""

    __slots__ = ("_last", "_left", "_line")

    def __init__(self) -> None:
        self._left = 0  # bytes of a chunk, and its line end
        self._line = b""
        self._last = False

    def end(self, data: bytes, at: int) -> int:
        """Where the body ends in these bytes, from `at` on, or these do."""
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            start, at = at, data.find(b"\n", at) + 1
            if not at:
                self._line += data[start:]
                break
            line, self._line = self._line + data[start:at], b""
            if self._last:
                if line == b"\r\n":
                    return at
                continue
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                break
            if size < 0:
                break
            self._last = size == 0
            self._left = size + 2 if size else 0
        return len(data)
