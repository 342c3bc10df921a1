"""The heads that leave the gateway: of the request to a service, of the answer to the client.

Fields for one hop are removed before ours are added, so that nobody can nominate one of ours away. The request's target
is as it came, less the route's prefix; its framing is written anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from anumate.lib.env import Networks
from anumate.lib.problem import Problem
from gateway.proxy.auth import authorization_for_service, consumer_fields
from gateway.proxy.edits import Edits
from gateway.proxy.exchange import Exchange, Header, nominated
from gateway.proxy.fields import FORWARDED, HOP_BY_HOP, PSEUDONYM
from gateway.proxy.handshake import SWITCH
from gateway.proxy.live import Binding

VIA: Final = b"1.1 " + PSEUDONYM

_ORDINARY_CONNECTION: Final = (b"keep-alive", b"close")
_KEPT_FROM_CLIENT: Final = HOP_BY_HOP | {b"x-request-id"}


class Peers:
    """Whom we believe about where a request came from."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = trusted
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def client_address(self, x: Exchange) -> str:
        """The nearest address that is no trusted proxy's."""
        if not self._trusted or not self.trusts(x.peer):
            return x.peer
        hops = x.known.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for hop in reversed(hops):
            address = hop.strip()
            if address and not self.trusts(address):
                return address
        return x.peer

    def forwarded(self, x: Exchange) -> Sequence[bytes]:
        """X-Forwarded-*: what a trusted proxy says, with its own address added; else only what we see ourselves."""
        server = x.scope.get("server")
        seen = _seen(x.peer, x.scheme, server[1] if server and server[1] else 0)
        known = x.known
        if not self._trusted or not self.trusts(x.peer):
            return (*seen, b"x-forwarded-host: " + known.get(b"host", b""))
        said = {name: value for name in FORWARDED if (value := known.get(name))}
        said.setdefault(b"x-forwarded-host", known.get(b"host", b""))
        for line in seen:
            name, _, value = line.partition(b": ")
            if name != b"x-forwarded-for":
                said.setdefault(name, value)
        before = said.pop(b"x-forwarded-for", None)
        said[b"x-forwarded-for"] = before + b", " + x.peer.encode() if before else x.peer.encode()
        return [b"%b: %b" % field for field in said.items()]


@lru_cache(maxsize=4096)
def _seen(peer: str, scheme: str, port: int) -> tuple[bytes, ...]:
    lines = (f"x-forwarded-for: {peer or 'unknown'}", f"x-forwarded-proto: {scheme}", f"x-forwarded-port: {port}")
    return tuple(line.encode() for line in lines)


def request_head(binding: Binding, x: Exchange, peers: Peers) -> bytes:
    """The head of the request that the service gets.

    Raises:
        Problem: malformed_request, where a line could be read as more than one.
    """
    known, passed = x.known, x.headers
    connection = known.get(b"connection")
    if connection is not None and connection.lower() not in _ORDINARY_CONNECTION:
        hop = nominated(connection)
        passed = [header for header in passed if header[0] not in hop]
    edits = binding.request_edits
    if edits is not None:
        passed = edits.kept(passed)
    target = x.target.encode() + b"?" + x.query if x.query else x.target.encode()
    lines = [b"%b %b HTTP/1.1" % (x.method.encode(), target), b"host: " + (binding.host or known.get(b"host", b""))]
    lines += [b"%b: %b" % header for header in passed]
    authorization = authorization_for_service(known, x.client)
    if authorization and not (edits is not None and b"authorization" in edits.dropped):
        lines.append(b"authorization: " + authorization)
    if edits is not None:
        lines += edits.lines
    if tracestate := known.get(b"tracestate"):
        lines.append(b"tracestate: " + tracestate)
    via = known.get(b"via")
    lines.append(b"via: %b, %b" % (via, VIA) if via else b"via: " + VIA)
    lines += (b"x-request-id: " + x.request_id, b"traceparent: " + x.traceparent)
    lines += peers.forwarded(x)
    if x.client is not None and x.client.id:
        lines += consumer_fields(x.client)
    if x.content_length is not None:
        lines.append(b"content-length: " + x.content_length)
    elif x.has_body:
        lines.append(b"transfer-encoding: chunked")
    if x.handshake is not None:
        lines += (b"%b: %b" % field for field in SWITCH)
    head = b"\r\n".join(lines)
    # Servers differ in what they let through. One look at the whole: every line end must be one of ours.
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head or b" " in x.query:
        raise Problem("malformed_request", "A field or the query holds a line break, a NUL or a space.")
    return head + b"\r\n\r\n"


def answer_head(status: int, headers: list[Header], added: list[Header], edits: Edits | None = None) -> list[Header]:
    """The fields of a service's answer that the client gets, as the route edits them, and ours."""
    passed: list[Header] = []
    connection = None
    for header in headers:
        if header[0] not in _KEPT_FROM_CLIENT:
            passed.append(header)
        elif header[0] == b"connection":
            connection = header[1].lower()
    if connection is not None and connection not in _ORDINARY_CONNECTION:
        hop = nominated(connection)
        passed = [header for header in passed if header[0] not in hop]
    if status in (204, 304):
        # Either may name the length of a body that does not come, over which a server stumbles.
        passed = [header for header in passed if header[0] != b"content-length"]
    if edits is not None:
        passed = [*edits.kept(passed), *edits.fields]
    ours = {name for name, _ in added if name != b"via" and name != b"vary"}
    if any(name in ours for name, _ in passed):
        passed = [header for header in passed if header[0] not in ours]
    passed += added
    return passed
