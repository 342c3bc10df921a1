"""Which pages may open our websockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import validate_host

App = Callable[[Any, Any, Any], Awaitable[None]]


def from_our_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a page of ours opens the socket. Browsers send our cookie along for any page's script, and its origin."""
    sent = {name: value.decode("latin-1") for name, value in headers}
    origin, host = sent.get(b"origin", ""), sent.get(b"host", "")
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    place = urlsplit(origin)
    return (
        place.scheme in {"http", "https"}
        and place.netloc.lower() == host.lower()
        and validate_host(place.hostname or "", settings.ALLOWED_HOSTS)
    )


def our_pages_only(app: App) -> App:
    """Refuses every websocket that a page of another origin opens, before a session is looked up for it."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        inner = app if from_our_page(scope["headers"]) else WebsocketDenier()
        await inner(scope, receive, send)

    return guarded
