"""The heads that leave the gateway: of the request to a service, of the answer to the client.

Fields for one hop are removed before ours are added, so that nobody can nominate one of ours away. The request's target
is as it came, less the route's prefix; its framing is written anew.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, NamedTuple

from anumate.lib.env import Networks
from anumate.lib.problem import Problem
from gateway.proxy.addresses import canonical, without_mapped
from gateway.proxy.answer import ORDINARY_CONNECTION, Answer
from gateway.proxy.auth import authorization_for_service, consumer_lines
from gateway.proxy.edits import Edits
from gateway.proxy.exchange import Exchange
from gateway.proxy.fields import FORWARDED, via_of
from gateway.proxy.handshake import SWITCH
from gateway.proxy.live import Binding
from gateway.proxy.request import Header, encoded, nominated

_NOTHING: Final[frozenset[bytes]] = frozenset()


class Peers:
    """Whom we believe about where a request came from."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = without_mapped(trusted)
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(canonical(address))
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def client_address(self, x: Exchange) -> str:
        """The nearest address that is no trusted proxy's, in its one spelling."""
        if not self._trusted or not self.trusts(x.peer):
            return canonical(x.peer)
        hops = x.known.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for hop in reversed(hops):
            address = canonical(hop.strip())
            if address and not self.trusts(address):
                return address
        return canonical(x.peer)

    def forwarded(self, x: Exchange) -> bytes:
        """The four lines X-Forwarded-*: what a trusted proxy says, with its own address added; else only what we see
        ourselves."""
        host = x.known.get(b"host")
        if not self._trusted or not self.trusts(x.peer):
            return b"%bx-forwarded-host: %b\r\n" % (_seen(*x.link), host) if host else _seen(*x.link)
        said = {name: value for name in FORWARDED if (value := x.known.get(name))}
        if host:
            said.setdefault(b"x-forwarded-host", host)
        said.setdefault(b"x-forwarded-proto", x.scheme.encode())
        said.setdefault(b"x-forwarded-port", b"%d" % x.link.port)
        before, peer = said.get(b"x-forwarded-for"), x.peer.encode()
        said[b"x-forwarded-for"] = before + b", " + peer if before else peer
        lines = encoded(list(said.items()))
        _require_lines(lines, len(said))
        return lines


@lru_cache(maxsize=4096)
def _seen(peer: str, scheme: str, port: int) -> bytes:
    lines = f"x-forwarded-for: {peer or 'unknown'}\r\nx-forwarded-proto: {scheme}\r\nx-forwarded-port: {port}\r\n"
    return lines.encode()


class Template(NamedTuple):
    """The head of a request to a service, but for what differs each time and by caller: it goes between the two."""

    before: bytes
    after: bytes


def template(binding: Binding, x: Exchange) -> Template:
    """What a service gets of a request, whoever sends it when: of the caller, only whether there is one counts.

    Raises:
        Problem: malformed_request, where a line could be read as more than one.
    """
    known, passed, lines = x.known, x.headers, x.fields.lines
    connection, hop = known.get(b"connection"), _NOTHING
    if connection is not None and connection.lower() not in ORDINARY_CONNECTION:
        hop = nominated(connection)
        passed = [header for header in passed if header[0] not in hop]
    edits = binding.request_edits
    if edits is not None:
        passed = [*edits.kept(passed), *edits.fields]
    if passed is not x.fields.passed:
        lines = encoded(passed)
    target = x.target.encode()
    if x.query:
        target += b"?" + x.query
    via, ours = known.get(b"via"), via_of(x.version)
    host = binding.host or known.get(b"host")
    before = b"%b %b HTTP/1.1\r\n%b%bvia: %b\r\n" % (
        *(x.method.encode(), target, b"host: %b\r\n" % host if host else b""),
        *(lines, via + b", " + ours if via else ours),
    )
    after: list[bytes] = []
    dropped = hop if edits is None else hop | edits.dropped
    if (authorization := authorization_for_service(known, x.client)) and b"authorization" not in dropped:
        after.append(b"authorization: %b\r\n" % authorization)
    if x.tracestate and b"tracestate" not in hop:
        after.append(b"tracestate: %b\r\n" % x.tracestate)
    if x.content_length is not None:
        after.append(b"content-length: %b\r\n" % x.content_length)
    elif x.has_body:
        after.append(b"transfer-encoding: chunked\r\n")
    if x.handshake is not None:
        after += [b"%b: %b\r\n" % field for field in SWITCH]
    _require_lines(before, (3 if host else 2) + len(passed))
    rest = b"".join(after)
    _require_lines(rest, len(after))
    return Template(before, rest + b"\r\n")


def filled(head: Template, caller: bytes, x: Exchange, peers: Peers) -> bytes:
    """The head of the request that the service gets, with the lines that tell of the caller."""
    return b"%bx-request-id: %b\r\ntraceparent: %b\r\n%b%b%b" % (
        *(head.before, x.request_id, x.traceparent),
        *(peers.forwarded(x), caller, head.after),
    )


def request_head(binding: Binding, x: Exchange, peers: Peers) -> bytes:
    """The same, for a request of its own.

    Raises:
        Problem: malformed_request, where a line could be read as more than one.
    """
    return filled(template(binding, x), consumer_lines(x.client), x, peers)


def _require_lines(lines: bytes, count: int) -> None:
    """Servers differ in what they let through. One look at the whole: every line end must be one of ours."""
    if lines.count(b"\n") != count or lines.count(b"\r") != count or b"\0" in lines:
        raise Problem("malformed_request", "A field or the query holds a line break or a NUL.")


def answer_head(answer: Answer, added: list[Header], edits: Edits | None = None) -> list[Header]:
    """The fields of a service's answer that the client gets, as the route edits them, and ours."""
    passed = answer.passed
    if edits is not None:
        passed = [*edits.kept(passed), *edits.fields]
    ours = {name for name, _ in added if name != b"vary"}
    return [*(header for header in passed if header[0] not in ours), (b"via", answer.via), *added]


def answer_lines(answer: Answer, added: list[Header], edits: Edits | None = None) -> bytes:
    """The same as lines of a head."""
    if edits is None and not answer.speaks_for_us:
        return answer.lines + encoded(added)
    return encoded(answer_head(answer, added, edits))
