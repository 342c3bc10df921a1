"""The gateway's server: a request may take its connection over, as WebSockets do, and it ends without losing any.

When the server stops, requests in flight are answered, and a connection that is idle stays open for a moment: a request
may be on its way that no other worker would ever see. It gets its answer, with `Connection: close`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway.proxy.server import Server
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upstream import ClientGone

SWITCH: Final = "anumate.switch"
"""The extension of an ASGI scope under which the `UpgradingServer` is found, where a request asks for an upgrade."""
LINGER_SECONDS: Final = 1.0
"""How long an idle connection stays open when the server stops."""
EARLY_LIMIT: Final = 64 * 1024
"""Bytes that a client may send before its upgrade was granted."""


class UpgradingServer(Server):
    """One connection of a client. What does not upgrade in the end is answered and closed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._upgrading = False
        self._early = bytearray()
        self._tunnel: Tunnel | None = None
        self._draining = False

    def _should_upgrade_to_ws(self) -> bool:
        return False  # uvicorn would speak the protocol itself

    def on_headers_complete(self) -> None:
        upgrades = self.parser.should_upgrade()
        if upgrades:
            self.scope["extensions"] = {SWITCH: self}  # type: ignore[dict-item]
        super().on_headers_complete()
        if upgrades or self._draining:  # after an upgrade, the parser reads no further
            self.cycle.keep_alive = False

    def on_upgrade(self, rest: bytes) -> None:
        self._upgrading = True
        self._hold(rest)

    def data_received(self, data: bytes) -> None:
        if self._upgrading:
            self._hold(data)
        else:
            super().data_received(data)

    def _hold(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_LIMIT:
            self.flow.pause_reading()

    def switch(self, head: bytes, tunnel: Tunnel) -> tuple[asyncio.Transport, bytes]:
        """Answer with `head` and leave the connection to the tunnel; answers with what the client has sent already.

        Raises:
            ClientGone: it is not there any more.
        """
        if self.transport.is_closing():
            raise ClientGone
        self._tunnel = tunnel
        self._unset_keepalive_if_required()
        self.cycle.response_started = self.cycle.response_complete = True
        self.transport.write(head)
        self.transport.set_protocol(tunnel.client)
        self.transport.resume_reading()
        early, self._early = bytes(self._early), bytearray()
        return self.transport, early

    def shutdown(self) -> None:
        if (drain := getattr(self.app, "drain", None)) is not None:
            drain()
        self._draining = True
        if self._tunnel is not None:
            self._tunnel.drain()
        elif self._is_serving() or self._unread:
            self._last_ones()
        else:
            self.loop.call_later(LINGER_SECONDS, self._let_go)

    def _last_ones(self) -> None:
        """What has begun is answered, and the connection closed with the last answer."""
        if not self.pipeline and self.cycle is not None:
            self.cycle.keep_alive = False

    def _let_go(self) -> None:
        if not self._is_serving() and not self._unread and not self.transport.is_closing():
            self.transport.close()
