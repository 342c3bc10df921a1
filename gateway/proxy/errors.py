"""Refusals as bytes: `application/problem+json`, encoded once for each kind of refusal."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache

from anumate.lib.problem import CONTENT_TYPE, Problem
from gateway.proxy.request import Header

_CONTENT_TYPE = (b"content-type", CONTENT_TYPE.encode())
_NO_STORE = (b"cache-control", b"no-store")


def answer_of(problem: Problem, request_id: bytes) -> tuple[list[Header], bytes]:
    """The fields and the body that tell a client why it was refused."""
    if problem.errors or problem.members:
        body = problem.encode(request_id.decode())
    else:
        body = _opening(problem.code, problem.detail) + b',"request_id":"%b"}' % request_id
    headers = [
        _CONTENT_TYPE,
        (b"content-length", b"%d" % len(body)),
        _NO_STORE,
        (b"x-anumate-reason", problem.code.encode()),
    ]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    return headers, body


@lru_cache(maxsize=2048)
def _opening(code: str, detail: str) -> bytes:
    return Problem(code, detail).encode()[:-1]


@lru_cache(maxsize=2)
def date_field(second: int) -> Header:
    """The Date of an answer that is our own."""
    return b"date", formatdate(second, usegmt=True).encode()
