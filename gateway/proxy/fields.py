"""Header fields that mean something to the gateway itself; all others are passed on as they came."""

from __future__ import annotations

from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"),
    }
)
FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
# What the gateway itself reads, writes or hides; everything else is passed on as it came. `proxy` would become
# HTTP_PROXY in a CGI service.
HANDLED: Final = frozenset(
    {
        *HOP_BY_HOP,
        *FORWARDED,
        *(b"host", b"content-length", b"expect", b"via", b"x-request-id", b"x-api-key", b"authorization"),
        *(b"forwarded", b"x-real-ip", b"proxy", b"traceparent", b"tracestate"),
    }
)
# Names by which the gateway speaks to services; nobody else may.
CONSUMER: Final = b"x-consumer-"
OURS: Final = (CONSUMER, b"x-forwarded-")
PSEUDONYM: Final = b"anumate"
"""Our name in Via."""


def via_of(version: str) -> bytes:
    """Our part of Via in a message that came in that version of HTTP (RFC 9110 §7.6.3)."""
    return b"%b %b" % (version.encode(), PSEUDONYM)


VIA: Final = via_of("1.1")
"""What answers of our own say."""


def is_loop(via: bytes) -> bool:
    """Whether a Via field says that the request went through a gateway of ours before."""
    return PSEUDONYM in via and any(hop.split()[1:2] == [PSEUDONYM] for hop in via.split(b","))
