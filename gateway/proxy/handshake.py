"""The request that asks for a WebSocket, and the answer that grants it (RFC 6455 §4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final, NamedTuple

from anumate.lib.problem import Problem

Header = tuple[bytes, bytes]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = {"Sec-WebSocket-Version": "13"}
SWITCH: Final[tuple[Header, ...]] = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
"""The fields of this hop, with which each side of a handshake says what it wants."""


class Handshake(NamedTuple):
    """What a client asks for."""

    key: bytes
    protocols: tuple[bytes, ...]

    def check(self, headers: Sequence[Header]) -> str:
        """What is wrong with the fields of an answer 101; empty when nothing is (§4.1)."""
        found = _joined(headers)
        if b"websocket" not in tokens(found.get(b"upgrade", b"")):
            return "it switches to another protocol than a WebSocket"
        if b"upgrade" not in tokens(found.get(b"connection", b"")):
            return "its Connection field does not say Upgrade"
        if found.get(b"sec-websocket-accept") != accept_of(self.key):
            return "its Sec-WebSocket-Accept does not fit the key"
        chosen = found.get(b"sec-websocket-protocol")
        if chosen is not None and chosen not in self.protocols:
            return "it chose a subprotocol that nobody offered"
        return ""


def read_handshake(method: str, version: str, known: Mapping[bytes, bytes], headers: Sequence[Header]) -> Handshake:
    """What a request says that asks for a WebSocket.

    Raises:
        Problem: malformed_request, where it is not as §4.2.1 wants it.
    """
    if method != "GET" or version != "1.1" or b"upgrade" not in tokens(known.get(b"connection", b"")):
        raise Problem("malformed_request", "A WebSocket begins with GET, HTTP/1.1 and Connection: Upgrade.")
    found = _joined(headers)
    if found.get(b"sec-websocket-version") != b"13":
        raise Problem("malformed_request", "The only version of WebSockets taken is 13.", headers=_VERSION)
    key = found.get(b"sec-websocket-key", b"")
    try:
        fit = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        fit = False
    if not fit:
        raise Problem("malformed_request", "Sec-WebSocket-Key is not 16 bytes in base64.")
    return Handshake(key, tuple(_items(found.get(b"sec-websocket-protocol", b""))))


def accept_of(key: bytes) -> bytes:
    """The proof that a server has read the key."""
    return base64.b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def tokens(field: bytes) -> frozenset[bytes]:
    """A list of words that mean the same in upper and in lower case."""
    return frozenset(_items(field.lower()))


def _items(field: bytes) -> list[bytes]:
    return [item for part in field.split(b",") if (item := part.strip(b" \t"))]


def _joined(headers: Sequence[Header]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = found[name] + b", " + value if name in found else value
    return found
