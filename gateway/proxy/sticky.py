"""Who a request comes from, for services whose callers are to stay with one instance."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.proxy import policies
from gateway.proxy.exchange import Exchange
from gateway.proxy.request import Header


class Sticky:
    """`by` is key, address, header:<name> or cookie:<name>."""

    __slots__ = ("_cookie", "_header", "by")

    def __init__(self, by: str) -> None:
        self.by = by
        kind, _, name = by.partition(":")
        self._header = name.lower().encode() if kind == "header" else b""
        self._cookie = name.encode() + b"=" if kind == "cookie" else b""

    def subject(self, x: Exchange) -> str:
        """Empty where the request does not say: then it goes to any instance."""
        if self._header:
            return next((value for name, value in x.fields.all if name == self._header), b"").decode("latin-1")
        if self._cookie:
            return _cookie(x.fields.all, self._cookie).decode("latin-1")
        if self.by == "key":
            return x.client.id if x.client is not None else ""
        return x.address


def sticky_of(policy: policies.Sticky) -> Sticky | None:
    return Sticky(policy.by) if policy.by else None


def _cookie(headers: Sequence[Header], start: bytes) -> bytes:
    for name, value in headers:
        if name == b"cookie":
            for pair in value.split(b";"):
                if (pair := pair.strip(b" \t")).startswith(start):
                    return pair[len(start) :]
    return b""
