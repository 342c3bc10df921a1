"""One request on its way through the gateway: what it says, and what each step found out about it."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from random import getrandbits
from typing import TYPE_CHECKING, Any, Final

from anumate.lib.problem import Problem
from gateway.proxy.fields import HANDLED, OURS
from gateway.proxy.handshake import Handshake, read_handshake, tokens
from gateway.proxy.paths import RequestPath, read_path

if TYPE_CHECKING:
    from gateway.proxy.bodies import Kept
    from gateway.proxy.limiter import Bucket
    from gateway.proxy.live import Binding
    from gateway.proxy.rewriting import Rewriting
    from registry.live.keys import KeyRecord

Header = tuple[bytes, bytes]
Scope = dict[str, Any]

REFUSED_METHODS: Final = ("CONNECT", "TRACE")
NO_STATUSES: Final[frozenset[int]] = frozenset()

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}?)\.?(?::[0-9]{0,5})?").fullmatch
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}").fullmatch
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?").fullmatch


class Exchange:
    """A request and its answer. Made before the first step; each step fills in its part."""

    __slots__ = (
        "address",
        "binding",
        "bucket",
        "buckets",
        "client",
        "content_length",
        "ended",
        "first_body",
        "handshake",
        "has_body",
        "headers",
        "host",
        "instance",
        "kept",
        "known",
        "method",
        "path",
        "peer",
        "query",
        "request_id",
        "rewriting",
        "scheme",
        "scope",
        "service",
        "started",
        "started_answer",
        "status",
        "target",
        "tenant",
        "timeout",
        "traceparent",
        "unwanted",
    )

    path: RequestPath
    binding: Binding | None
    client: KeyRecord | None
    bucket: Bucket | None
    """The one bucket of the route's only policy."""
    buckets: Sequence[Bucket]
    """Those of several policies."""
    kept: Kept | None
    handshake: Handshake | None
    """Of a request that asks for a WebSocket."""
    ended: float
    """When a WebSocket's request was over, whose connection then goes on."""
    unwanted: frozenset[int]
    """Statuses with which an answer is tried again elsewhere."""
    rewriting: Rewriting

    def __init__(self, scope: Scope, started: float) -> None:
        self.scope = scope
        self.started = started
        self.method: str = scope["method"]
        self.query: bytes = scope["query_string"]
        self.scheme: str = scope["scheme"]
        peer = scope["client"]
        self.peer: str = peer[0] if peer else ""
        self.address = self.peer
        self.tenant = self.service = self.instance = self.host = self.target = ""
        self.binding = self.client = self.bucket = self.kept = self.handshake = None
        self.ended = 0.0
        self.buckets = ()
        self.unwanted = NO_STATUSES
        self.first_body: MutableMapping[str, Any] | None = None
        self.has_body = False
        self.content_length: bytes | None = None
        self.started_answer = False
        self.status = 0
        self.timeout = 0.0
        self.known: dict[bytes, bytes] = {}
        self.headers: list[Header] = []
        self._sort_headers(scope["headers"])
        self._identify()

    def _sort_headers(self, headers: Sequence[Header]) -> None:
        """Fill `known` with the fields the gateway handles, and `headers` with those it passes on."""
        known, passed = self.known, self.headers
        for header in headers:
            name, value = header
            if name in HANDLED:
                # Lines of one name make one list, in their order. Where only one value makes sense, the list does not.
                known[name] = known[name] + b", " + value if name in known else value
            elif (name[:2] == b"x-" and name.startswith(OURS)) or (b"_" in name and _is_ours_in_disguise(name)):
                continue
            else:
                passed.append(header)

    def _identify(self) -> None:
        """Known by its own id where it brings a fit one; else by a new one, which is the trace's id too."""
        request_id = self.known.get(b"x-request-id")
        traceparent = self.known.get(b"traceparent")
        if traceparent is not None and (not _TRACEPARENT(traceparent) or len(traceparent) > 512):
            traceparent = None
        if traceparent is None:
            self.known.pop(b"tracestate", None)
            number = f"{getrandbits(128) | 1:032x}"
            traceparent = b"00-%b-%016x-01" % (number.encode(), getrandbits(64) | 1)
        else:
            number = traceparent[3:35].decode()
        self.traceparent = traceparent
        if request_id is not None and _REQUEST_ID(request_id):
            self.request_id = request_id
        else:
            self.request_id = number.encode()

    def read(self) -> None:
        """Take the request's target and framing apart.

        Raises:
            Problem: malformed_request, where it means different things to different readers.
        """
        scope, known = self.scope, self.known
        self.path = read_path(scope.get("raw_path") or scope["path"].encode())
        version = scope["http_version"]
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
            if not length.isdigit():
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
        if upgrade is not None and b"websocket" in tokens(upgrade):
            self.handshake = read_handshake(self.method, version, known, scope["headers"])
        if self.method in REFUSED_METHODS:
            allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
            raise Problem("method_not_allowed", f"{self.method} is not taken here.", headers={"Allow": allowed})

    @property
    def has_its_body(self) -> bool:
        """Whether what was read of the body is all at hand, to be sent again."""
        first = self.first_body
        return first is None or not first.get("more_body") or (self.kept is not None and self.kept.whole)

    @property
    def replayable(self) -> bool:
        """May it be sent again after an instance has seen it? RFC 9110 §9.2.2."""
        return self.binding is not None and self.method in self.binding.repeatable and self.has_its_body


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
    if match is None:
        raise Problem("malformed_request", "The Host field is not one host name.")
    return match[1].lower()


def nominated(connection: bytes) -> frozenset[bytes]:
    """The fields that a Connection field declares to be for this hop only."""
    return frozenset(token.strip().lower() for token in connection.split(b","))
