"""One request on its way through the gateway: what it says, and what each step found out about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Any, Final

from anumate.lib.problem import Problem
from gateway.proxy.handshake import Handshake, read_handshake, tokens
from gateway.proxy.paths import RequestPath, read_path
from gateway.proxy.request import LENGTH_DIGITS, Fields, Header, Link, Request, host_name

if TYPE_CHECKING:
    from gateway.proxy.bodies import Kept
    from gateway.proxy.buckets import Bucket
    from gateway.proxy.guard import Pass
    from gateway.proxy.live import Binding
    from gateway.proxy.rewriting import Rewriting
    from registry.live.keys import KeyRecord

Scope = dict[str, Any]

REFUSED_METHODS: Final = ("CONNECT", "TRACE")
NO_STATUSES: Final[frozenset[int]] = frozenset()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}").fullmatch
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch
"""Only versions after 00 may have more than its four parts, which are 55 bytes."""

_NEVER_ZERO: Final = 1 << 64 | 1


class Exchange:
    """A request and its answer. Made before the first step; each step fills in its part."""

    __slots__ = (
        "address",
        "asked",
        "binding",
        "bucket",
        "buckets",
        "client",
        "content_length",
        "ended",
        "extensions",
        "fields",
        "first_body",
        "handshake",
        "has_body",
        "headers",
        "host",
        "instance",
        "kept",
        "known",
        "last",
        "link",
        "method",
        "path",
        "peer",
        "permit",
        "query",
        "raw_path",
        "request_id",
        "rewriting",
        "scheme",
        "service",
        "started",
        "started_answer",
        "status",
        "target",
        "tenant",
        "timeout",
        "traceparent",
        "tracestate",
        "unwanted",
        "version",
    )

    path: RequestPath
    binding: Binding | None
    permit: Pass
    client: KeyRecord | None
    bucket: Bucket | None
    """The one bucket of the route's only policy."""
    buckets: Sequence[Bucket]
    """Those of several policies."""
    kept: Kept | None
    handshake: Handshake | None
    """Of a request that asks for a WebSocket."""
    asked: bytes
    """The query that came with it, before a key was taken out."""
    ended: float
    """When a WebSocket's request was over, whose connection then goes on."""
    unwanted: frozenset[int]
    """Statuses with which an answer is tried again elsewhere."""
    last: bool
    """The client wants its connection closed after the answer, which nobody but `direct` has to be told."""
    rewriting: Rewriting

    def __init__(
        self, method: str, raw_path: bytes, query: bytes, version: str, fields: Fields, link: Link, started: float
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.query = query
        self.version = version
        self.fields = fields
        self.headers: Sequence[Header] = fields.passed
        self.known = fields.known
        self.link = link
        self.peer = self.address = link.peer
        self.scheme = link.scheme
        self.started = started
        self.tenant = self.service = self.instance = self.host = self.target = ""
        self.binding = self.client = self.bucket = self.kept = self.handshake = None
        self.ended = self.timeout = 0.0
        self.buckets = ()
        self.unwanted = NO_STATUSES
        self.first_body: MutableMapping[str, Any] | None = None
        self.has_body = self.started_answer = False
        self.content_length: bytes | None = None
        self.status = 0
        self.last = False
        self.extensions: Mapping[str, Any] = {}
        self._identify()

    @classmethod
    def of_scope(cls, scope: Scope, started: float) -> Exchange:
        """As an ASGI server tells of it."""
        peer, server = scope["client"], scope.get("server")
        link = Link(peer[0] if peer else "", scope["scheme"], (server and server[1]) or 0)
        raw_path = scope.get("raw_path") or scope["path"].encode()
        fields = Fields(scope["headers"])
        x = cls(scope["method"], raw_path, scope["query_string"], scope["http_version"], fields, link, started)
        x.extensions = scope.get("extensions") or x.extensions
        return x

    @classmethod
    def of_request(cls, request: Request, link: Link, started: float) -> Exchange:
        """As `read_request` has read it, with `read` done.

        Raises:
            Problem: malformed_request.
        """
        x = cls(request.method, request.path, request.query, "1.1", request.fields, link, started)
        x.host, x.last = request.host, request.last
        length = x.content_length = x.known.get(b"content-length")
        x.has_body = length is not None and request.length > 0
        return x

    @classmethod
    def like(cls, known: Exchange, client: KeyRecord | None, link: Link, started: float) -> Exchange:
        """The same request once more, as far as it is known by its bytes, the table and the keys; by this client."""
        x = cls(known.method, known.raw_path, known.query, "1.1", known.fields, link, started)
        x.host, x.path, x.tenant, x.binding = known.host, known.path, known.tenant, known.binding
        x.last, x.content_length = known.last, known.content_length
        x.target, x.timeout, x.client = known.target, known.timeout, client
        return x

    def handshake_again(self) -> Exchange:
        """A WebSocket's request as it came."""
        x = Exchange.like(self, None, self.link, self.started)
        x.query, x.handshake = self.asked, self.handshake
        return x

    def _identify(self) -> None:
        """Known by its own id where it brings a fit one; else by a new one, which is the trace's id too."""
        known = self.known
        traceparent = known.get(b"traceparent")
        if traceparent is not None and (not _TRACEPARENT(traceparent) or len(traceparent) > 512):
            traceparent = None
        if traceparent is None:
            self.tracestate = b""
            numbers = b"%048x" % (getrandbits(192) | _NEVER_ZERO)
            number = numbers[:32]
            self.traceparent = b"00-%b-%b-01" % (number, numbers[32:])
        else:
            self.tracestate = known.get(b"tracestate", b"")
            self.traceparent = traceparent
            number = traceparent[3:35]
        request_id = known.get(b"x-request-id")
        self.request_id = request_id if request_id is not None and _REQUEST_ID(request_id) else number

    def read(self) -> None:
        """Take the request's target and framing apart.

        Raises:
            Problem: malformed_request, where it means different things to different readers.
        """
        known, version = self.known, self.version
        self.path = read_path(self.raw_path)
        if b" " in self.query or b"#" in self.query:
            raise Problem("malformed_request", "The query holds a space or a fragment.")
        host = known.get(b"host")
        if host is None:
            if version == "1.1":
                raise Problem("malformed_request", "An HTTP/1.1 request needs a Host field.")
            host = b"localhost"
        self.host = host_name(host)
        length, coding = known.get(b"content-length"), known.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                raise Problem("malformed_request", "Content-Length and Transfer-Encoding exclude each other.")
            if version == "1.0" or coding.lower() != b"chunked":
                raise Problem("malformed_request", "The only transfer coding taken is chunked, from HTTP/1.1 on.")
            self.has_body = True
        elif length is not None:
            if not length.isdigit() or len(length) > LENGTH_DIGITS:
                raise Problem("malformed_request", "Content-Length is not one whole number.")
            self.content_length = length
            self.has_body = int(length) > 0
        else:
            self.has_body = version not in ("1.0", "1.1")
        upgrade = known.get(b"upgrade")
        if upgrade is not None and self.has_body:
            # The server's parser stops at the upgrade: the body would be lost, or be read as the next request.
            detail = "A request with a body cannot ask for another protocol."
            raise Problem("malformed_request", detail, headers={"Connection": "close"})
        if upgrade is not None and version != "1.0" and b"websocket" in tokens(upgrade):  # RFC 9110 §7.8
            self.handshake = read_handshake(self.method, version, known, self.fields.all)
            self.asked = self.query
        if self.method in REFUSED_METHODS:
            allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
            raise Problem("method_not_allowed", f"{self.method} is not taken here.", headers={"Allow": allowed})

    @property
    def nameless(self) -> bool:
        """Whether its head names no host, which HTTP/1.0 may leave out, and every request to a service has."""
        return b"host" not in self.known and not (self.binding is not None and self.binding.host)

    @property
    def has_its_body(self) -> bool:
        """Whether what was read of the body is all at hand, to be sent again."""
        first = self.first_body
        return first is None or not first.get("more_body") or (self.kept is not None and self.kept.whole)

    @property
    def replayable(self) -> bool:
        """May it be sent again after an instance has seen it? RFC 9110 §9.2.2."""
        return self.binding is not None and self.method in self.binding.repeatable and self.has_its_body
