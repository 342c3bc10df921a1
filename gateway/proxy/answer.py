"""The head of a service's answer, taken apart once for all answers that have the same.

`read_answer` reads the commonest heads without llhttp: HTTP/1.1, whole in one piece, a body of known length. What it
takes, llhttp would take and read alike (a property test holds it to that); everything else it leaves to llhttp.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.proxy.fields import HOP_BY_HOP, via_of
from gateway.proxy.request import Header, encoded, nominated

HEAD_LIMIT: Final = 4 * 1024
"""Bytes of a head that are worth to be remembered, and with that the memory it takes: this times `HEADS`."""
HEADS: Final = 1024
ORDINARY_CONNECTION: Final = (b"keep-alive", b"close")

_NOT_FOR_CLIENTS: Final = HOP_BY_HOP | {b"x-request-id"}
_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t -~\x80-\xff]*+\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)++)\r\n"
).fullmatch


class Answer:
    """Shared, so never changed. `fields` are those that came, names in lower case; `passed` those that clients get,
    `lines` the same as bytes, with our part of `via`. `speaks_for_us`: a field of it has a name by which the gateway
    speaks.
    """

    __slots__ = ("fields", "lines", "passed", "speaks_for_us", "status", "via")

    def __init__(self, status: int, fields: Sequence[Header], version: str = "1.1") -> None:
        self.status = status
        self.via = via_of(version)
        self.fields = fields
        self.passed = _passed(status, fields)
        self.lines = encoded([*self.passed, (b"via", self.via)])
        self.speaks_for_us = any(name[:9] == b"ratelimit" or name[:15] == b"access-control-" for name, _ in self.passed)


def _passed(status: int, fields: Sequence[Header]) -> list[Header]:
    passed: list[Header] = []
    connection = None
    for header in fields:
        if header[0] not in _NOT_FOR_CLIENTS:
            passed.append(header)
        elif header[0] == b"connection":
            said = header[1].lower()
            connection = said if connection is None else connection + b"," + said
    if connection is not None and connection not in ORDINARY_CONNECTION:
        hop = nominated(connection) - {b"content-length"}  # without which the client could not tell where it ends
        passed = [header for header in passed if header[0] not in hop]
    if status in (204, 304):
        # Either may name the length of a body that does not come, over which a server stumbles.
        passed = [header for header in passed if header[0] != b"content-length"]
    return passed


class Opening(NamedTuple):
    """A head that `read_answer` has taken: it is `size` bytes long, and the body `length`."""

    answer: Answer
    size: int
    length: int


def read_answer(data: bytes) -> Opening | None:
    """The answer that the bytes begin with; None when it takes more than a look to tell."""
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT)
    return _opening(data[: end + 4]) if end > 0 else None


@lru_cache(maxsize=HEADS)  # within a second, most answers of a service have one head: 4 us less for each such answer
def _opening(head: bytes) -> Opening | None:
    found = _HEAD(head)
    if found is None:
        return None
    lines = [line.partition(b":") for line in found[2][:-2].split(b"\r\n")]
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    framing = [value for name, value in fields if name in (b"content-length", b"transfer-encoding", b"upgrade")]
    if len(framing) != 1 or not (framing[0].isdigit() and len(framing[0]) < 16):
        return None
    if any(name == b"connection" and value.lower() != b"keep-alive" for name, value in fields):
        return None
    status = int(found[1])
    return None if status in (204, 304) else Opening(Answer(status, fields), len(head), int(framing[0]))
