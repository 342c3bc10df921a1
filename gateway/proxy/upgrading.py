"""The gateway's server: one whose connections a request may take over, as WebSockets do."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway.proxy.server import Server
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upstream import ClientGone

SWITCH: Final = "anumate.switch"
"""The extension of an ASGI scope under which the `UpgradingServer` is found, where a request asks for an upgrade."""
EARLY_LIMIT: Final = 64 * 1024
"""Bytes that a client may send before its upgrade was granted."""


class UpgradingServer(Server):
    """One connection of a client. What does not upgrade in the end is answered and closed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._upgrading = False
        self._early = bytearray()
        self._tunnel: Tunnel | None = None

    def _should_upgrade_to_ws(self) -> bool:
        return False  # uvicorn would speak the protocol itself

    def on_headers_complete(self) -> None:
        upgrades = self.parser.should_upgrade()
        if upgrades:
            self.scope["extensions"] = {SWITCH: self}  # type: ignore[dict-item]
        super().on_headers_complete()
        if upgrades:
            self.cycle.keep_alive = False  # the parser reads no further

    def on_upgrade(self, rest: bytes) -> None:
        self._upgrading = True
        self._hold(rest + self.flow.take(len(self._next)))

    def _take(self, data: bytes) -> None:
        if self._upgrading:
            self._hold(data)
        else:
            super()._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._upgrading:
            # Among them is this connection, which would wait for Python's collector then.
            self.scope.pop("extensions", None)
        super().connection_lost(exc)

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

    @property
    def leaving(self) -> bool:
        return self._leaving

    def shutdown(self) -> None:
        if self._tunnel is not None:
            self._tunnel.drain()
        else:
            super().shutdown()
