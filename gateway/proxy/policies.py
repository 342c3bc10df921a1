"""What a route or an upstream may say beyond the plain case: small documents, each off as long as it is empty.

One declaration serves all faces: the models keep a document as JSON, the API takes and shows it, the admin asks for its
fields one by one, and the routing table carries it to the workers. Bounds and the sentence for people stand beside the
field; what one field means for another is judged in `gateway.control.rules`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Positive = Annotated[float, Meta(gt=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 40)]
Name = Annotated[str, Meta(max_length=255)]
Long = Annotated[str, Meta(max_length=2000)]
Pem = Annotated[str, Meta(max_length=64_000)]

Redirection = Literal[0, 301, 302, 303, 307, 308]
RetryOn = Literal["connect", "closed", "timeout", "status"]
AuthMethod = Literal["key", "jwt"]
ZoneUse = Literal["off", "prefer", "strict"]


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A header or query parameter with its value."""

    name: str
    value: str


class Document(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A group of settings; one with nothing but defaults is off."""


class Rewrite(Document, frozen=True, omit_defaults=True):
    """What the service sees in place of the host and path that the client sent."""

    host: Annotated[Name, Meta(description="Host for the service. Empty: as the client sent it.")] = ""
    path: Annotated[
        Long,
        Meta(
            description="Takes the place of the route's prefix, or of the whole path of an exact route; "
            r"for a regular expression what is put in place, with groups as \1. Empty: as `strip_prefix` says."
        ),
    ] = ""
    pattern: Annotated[
        Long,
        Meta(description="Regular expression (RE2) whose first match is replaced. Empty: the route's own path."),
    ] = ""


class Redirect(Document, frozen=True, omit_defaults=True):
    """An answer of the gateway's own that sends the client elsewhere; the route then needs no service."""

    status: Annotated[Redirection, Meta(description="0: no redirect.")] = 0
    scheme: Annotated[Literal["", "http", "https"], Meta(description="Empty: the request's.")] = ""
    host: Annotated[Name, Meta(description="With a port if need be. Empty: the request's.")] = ""
    path: Annotated[
        Long, Meta(description="Takes the place of the route's prefix, or of the whole path. Empty: as it is.")
    ] = ""


class HeaderEdits(Document, frozen=True, omit_defaults=True):
    """Changes of header fields: first those removed, then those set, then those added."""

    set: Annotated[tuple[Pair, ...], Meta(max_length=50, description="In place of whatever came.")] = ()
    add: Annotated[tuple[Pair, ...], Meta(max_length=50, description="Besides whatever came.")] = ()
    remove: Annotated[tuple[Name, ...], Meta(max_length=50, description="Names.")] = ()


class Mirror(Document, frozen=True, omit_defaults=True):
    """A copy of requests for another service, whose answers nobody sees."""

    service: Annotated[str, Meta(max_length=63, description="Empty: no mirror.")] = ""
    sample: Annotated[Share, Meta(description="Share of the requests that is copied.")] = 1.0
    body_bytes: Annotated[Bytes, Meta(description="Requests with a longer body are not copied.")] = 65_536


class Cors(Document, frozen=True, omit_defaults=True):
    """Which pages of other origins may call the route (Fetch standard). Without origins: as CORS_ORIGINS says."""

    origins: Annotated[
        tuple[Name, ...], Meta(max_length=100, description="Like https://app.example.com, or * for any.")
    ] = ()
    methods: Annotated[tuple[Name, ...], Meta(max_length=50, description="Empty: those the route takes.")] = ()
    headers: Annotated[
        tuple[Name, ...], Meta(max_length=100, description="Fields that a page may send. Empty: those it asks for.")
    ] = ()
    expose: Annotated[tuple[Name, ...], Meta(max_length=100, description="Fields of answers a page may read.")] = ()
    credentials: Annotated[bool, Meta(description="Whether pages may send cookies and keys.")] = False
    max_age: Annotated[int, Meta(ge=0, le=86_400, description="Seconds a browser may keep the answer.")] = 600


class Timeouts(Document, frozen=True, omit_defaults=True):
    """Deadlines besides the route's `timeout_seconds`, which is for the head of the answer."""

    connect: Annotated[Positive, Meta(description="For a connection to an instance.")] = 5.0
    idle: Annotated[Positive, Meta(description="Between two pieces of an answer.")] = 60.0
    total: Annotated[Seconds, Meta(description="From the request's head to the last byte of its answer. 0: none.")] = (
        0.0
    )


class Retry(Document, frozen=True, omit_defaults=True):
    """When a request may be tried on another instance, beyond how often (`retries`)."""

    on: Annotated[
        tuple[RetryOn, ...],
        Meta(
            description="connect: it took no connection; closed: it hung up before an answer; timeout; "
            "status: it answered with one of `statuses`."
        ),
    ] = ("connect", "closed")
    statuses: Annotated[tuple[Annotated[int, Meta(ge=400, le=599)], ...], Meta(max_length=50)] = (502, 503, 504)
    methods: Annotated[
        tuple[Name, ...], Meta(max_length=20, description="Methods that may reach a service twice (RFC 9110 §9.2.2).")
    ] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
    budget: Annotated[Share, Meta(description="Retries as a share of the requests of the last 10 s.")] = 0.2
    budget_minimum: Annotated[
        Annotated[float, Meta(ge=0, le=100_000)], Meta(description="Retries a second that are always allowed.")
    ] = 10.0
    backoff: Annotated[Seconds, Meta(description="The first wait is up to so long, each further up to twice that.")] = (
        0.025
    )
    backoff_limit: Annotated[Seconds, Meta(description="No wait is longer.")] = 0.25
    body_bytes: Annotated[Bytes, Meta(description="A longer body is not kept, and so not sent again.")] = 65_536


class Hedge(Document, frozen=True, omit_defaults=True):
    """A second try while the first still runs, for methods that may reach a service twice; the first answer wins."""

    after: Annotated[Seconds, Meta(description="Seconds without an answer's head. 0: no hedging.")] = 0.0
    most: Annotated[int, Meta(ge=1, le=5, description="Tries besides the first.")] = 1


class Limits(Document, frozen=True, omit_defaults=True):
    """What a route takes, and at what pace (Kestrel's least rate of 240 bytes a second); 0 is no limit."""

    body_bytes: Annotated[Bytes, Meta(description="Of a request's body.")] = 0
    concurrent: Annotated[
        Count, Meta(description="Requests at once in each worker of the gateway; they do not count together.")
    ] = 0
    body_rate: Annotated[
        Bytes,
        Meta(description="Bytes of a body that a client sends in a second at least, once its timeout is used up."),
    ] = 240


class Auth(Document, frozen=True, omit_defaults=True):
    """How a caller may prove itself, where the route asks for it (`auth_required`)."""

    methods: Annotated[tuple[AuthMethod, ...], Meta(min_length=1, description="Any one of them will do.")] = ("key",)
    issuers: Annotated[
        tuple[Annotated[str, Meta(max_length=63)], ...],
        Meta(max_length=20, description="JWT issuers of the tenant that are believed. Empty: all of them."),
    ] = ()
    query_parameter: Annotated[
        str, Meta(max_length=63, description="Where a key may stand in the query, too. Empty: nowhere.")
    ] = ""


class AccessLog(Document, frozen=True, omit_defaults=True):
    """How many requests leave a line in the access log."""

    sample: Annotated[Share, Meta(description="Share of the answers below 500.")] = 0.0
    failures: Annotated[Share, Meta(description="Share of the answers from 500 on.")] = 0.0


class WebSockets(Document, frozen=True, omit_defaults=True):
    """What the gateway does with requests that want to become a WebSocket (RFC 6455)."""

    enabled: Annotated[bool, Meta(description="Off: they are refused.")] = True
    message_bytes: Annotated[Bytes, Meta(description="Of one message, in either direction. 0: no limit.")] = 1 << 20
    idle: Annotated[Seconds, Meta(description="Seconds without a frame from either side. 0: no limit.")] = 300.0


class Sticky(Document, frozen=True, omit_defaults=True):
    """Requests of one caller go to one instance, by rendezvous hashing."""

    by: Annotated[
        str, Meta(max_length=110, description="key, address, header:<name> or cookie:<name>. Empty: not sticky.")
    ] = ""


class Outlier(Document, frozen=True, omit_defaults=True):
    """An instance that keeps failing is left out for a while (as in Envoy's outlier detection)."""

    consecutive_failures: Annotated[Count, Meta(description="In a row. 0: nobody is left out.")] = 5
    base_seconds: Annotated[Positive, Meta(description="How long the first time; each further adds as much.")] = 30.0
    max_seconds: Annotated[Positive, Meta(description="Never longer.")] = 300.0
    max_share: Annotated[Share, Meta(description="Of the instances, rounded down, but at least one.")] = 0.5


class Tls(Document, frozen=True, omit_defaults=True):
    """How instances with an https endpoint are spoken to. Certificates are verified unless this says otherwise."""

    verify: Annotated[bool, Meta(description="Off: anybody may answer. For trials only.")] = True
    server_name: Annotated[Name, Meta(description="Name asked for and verified. Empty: the endpoint's host.")] = ""
    authorities: Annotated[Pem, Meta(description="PEM certificates to trust. Empty: the system's.")] = ""
    certificate: Annotated[Pem, Meta(description="PEM certificate that the gateway shows (mTLS).")] = ""


class Address(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a service can be reached although nothing registers there."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    protocol: Literal["http", "https"] = "http"
    weight: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    zone: Annotated[str, Meta(max_length=63)] = ""
