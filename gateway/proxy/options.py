"""What an OPTIONS request asks of the gateway itself (RFC 9110 §9.3.7 and §7.6.2)."""

from __future__ import annotations

from typing import Final

from anumate.lib.problem import Problem
from gateway.proxy.exchange import Exchange
from gateway.proxy.router import Router

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
AS_A_WHOLE: Final = "/-/options"
"""The path under which `OPTIONS *` comes from the server."""
_FIELD: Final = b"max-forwards"


def last_hop(x: Exchange) -> bool:
    """Whether the request is not to be passed on. If it is, its Max-Forwards has become one less; what is no number
    is left alone."""
    for at, (name, value) in enumerate(x.headers):
        if name == _FIELD and value.isdigit() and len(value) < 10:
            if int(value) == 0:
                return True
            fewer = (_FIELD, b"%d" % (int(value) - 1))
            x.headers = [*x.headers[:at], fewer, *x.headers[at + 1 :]]
    return False


def allowed(router: Router, x: Exchange) -> bytes:
    """The methods that routes take here."""
    return ", ".join(method for method in METHODS if _is_taken(router, x, method)).encode()


def _is_taken(router: Router, x: Exchange, method: str) -> bool:
    try:
        router.match(x.tenant, x.host, method, x.path.matched, x.fields.all, x.query)
    except Problem:
        return False
    return True
