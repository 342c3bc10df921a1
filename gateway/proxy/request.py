"""What the head of a request says, taken apart once: by whoever sends the same fields again it is not read again.

`read_request` reads the commonest heads in one match of one regular expression: HTTP/1.1, whole in one piece, a body of
known length or none. What it takes, llhttp would take and read alike (a property test holds it to that); everything
else it leaves to llhttp.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from anumate.lib.problem import Problem
from gateway.proxy.fields import HANDLED, OURS

Header = tuple[bytes, bytes]

BLOCK_LIMIT: Final = 4 * 1024
"""Bytes of header fields that are worth to be remembered, and with that the memory it takes: this times `BLOCKS`."""
BLOCKS: Final = 1024

LENGTH_DIGITS: Final = 19
"""So many a Content-Length may have: Python reads no number of thousands of digits, and nobody needs leading zeros."""

_HOST = re.compile(r"(\[([0-9A-Fa-f:.]{2,45})\]|[A-Za-z0-9._-]{1,253}?)\.?(?::([0-9]{0,5}))?").fullmatch
_HEAD = re.compile(
    rb"(GET|POST|PUT|DELETE|PATCH) (/[!\"$->@-~]*+)(?:\?([!\"$-~]*+))? HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)++)\r\n"
).match


class HeadLimits(NamedTuple):
    """How much a request's head may be: bytes of its target, bytes of its fields as they are on the wire, their number,
    and the seconds from its first byte to its last. Fields that are all in `BLOCK_LIMIT` are never too many bytes.
    """

    url: int = 8 * 1024
    field_bytes: int = 32 * 1024
    fields: int = 100
    seconds: float = 10.0

    @property
    def unread(self) -> int:
        """Bytes the parser may take in without giving anything out: a whole head has to fit, what trickles in must
        end."""
        return self.url + self.field_bytes + 1024


USUAL: Final = HeadLimits()


class Link(NamedTuple):
    """A client's connection, as far as its requests tell of it."""

    peer: str
    scheme: str
    port: int


class Fields:
    """The header fields of a request. Shared by all that bring the same, so nothing of them is ever changed; `again`
    says that they were brought more than once.

    `all` are those that came, names in lower case; `known` those that the gateway handles, lines of one name as one
    list; `passed` those that go on to the service, `lines` the same as bytes.
    """

    __slots__ = ("again", "all", "known", "lines", "passed")

    def __init__(self, fields: Sequence[Header]) -> None:
        self.again = False
        self.all = fields
        self.known: dict[bytes, bytes] = {}
        self.passed: list[Header] = []
        known, passed = self.known, self.passed
        for header in fields:
            name, value = header
            if name in HANDLED:
                # Where only one value makes sense, the list does not.
                known[name] = known[name] + b", " + value if name in known else value
            elif (name[:2] == b"x-" and name.startswith(OURS)) or (b"_" in name and _is_ours_in_disguise(name)):
                continue
            else:
                passed.append(header)
        self.lines = encoded(passed)


class Request(NamedTuple):
    """A head that `read_request` has taken, and what came after it. `length` is that of the body, if it has one; with
    `last` the client wants the connection closed after it."""

    method: str
    path: bytes
    query: bytes
    fields: Fields
    host: str
    length: int
    last: bool
    body: bytes


def read_request(data: bytes, limits: HeadLimits = USUAL) -> Request | None:
    """The request that the bytes begin with; None when it takes more than a look to tell."""
    head = _HEAD(data)
    if head is None:
        return None
    method, path, query, block = head.groups(b"")
    if len(block) > BLOCK_LIMIT or len(path) + len(query) > limits.url - 1:
        return None
    ordinary = _ordinary(block)
    if ordinary is None:
        return None
    fields, host, length, last = ordinary
    if len(fields.all) > limits.fields:
        return None
    body = data[head.end() :]
    if len(body) > length:
        return None  # the next request came with it
    return Request(_METHODS[method], path, query, fields, host, length, last, body)


_METHODS: Final = {name.encode(): name for name in ("GET", "POST", "PUT", "DELETE", "PATCH")}
_UNUSUAL: Final = (b"transfer-encoding", b"upgrade", b"expect", b"http2-settings")


@lru_cache(maxsize=BLOCKS)  # most callers send the same lines again: 3 us less for each such request
def _ordinary(block: bytes) -> tuple[Fields, str, int, bool] | None:
    """Fields, host, length of the body, and whether it is the last request; None where that takes a closer look."""
    lines = block[:-2].split(b"\r\n")
    fields = Fields(
        [(name.lower(), value.strip(b" \t")) for name, _, value in [line.partition(b":") for line in lines]]
    )
    known = fields.known
    connection = known.get(b"connection", b"keep-alive").lower()
    if any(name in known for name in _UNUSUAL) or connection not in (b"keep-alive", b"close"):
        return None
    length = known.get(b"content-length", b"0")
    if not (length.isdigit() and len(length) < 16):
        return None
    try:
        host = host_name(known.get(b"host", b""))
    except Problem:
        return None
    return fields, host, int(length), connection == b"close"


def encoded(fields: Sequence[Header]) -> bytes:
    """As lines of a head."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def _is_ours_in_disguise(name: bytes) -> bool:
    """Whether a service that reads `_` as `-` (CGI, WSGI) would take the field for one of the gateway's."""
    hyphenated = name.replace(b"_", b"-")
    return hyphenated in HANDLED or hyphenated.startswith(OURS)


@lru_cache(maxsize=4096)
def host_name(field: bytes) -> str:
    """The host of a Host field: in lower case, without port and final dot.

    Raises:
        Problem: malformed_request.
    """
    match = _HOST(field.decode("latin-1"))
    if match is None or (match[2] and not _is_ipv6(match[2])) or int(match[3] or 0) > 65535:
        raise Problem("malformed_request", "The Host field is not one host name.")
    return match[1].lower()


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def nominated(connection: bytes) -> frozenset[bytes]:
    """The fields that a Connection field declares to be for this hop only."""
    return frozenset(token.strip().lower() for token in connection.split(b","))
