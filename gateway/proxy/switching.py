"""From a granted handshake to a tunnel: the answer is passed on, and both connections change hands."""

from __future__ import annotations

from gateway.proxy.exchange import Exchange
from gateway.proxy.forwarder import Delivery
from gateway.proxy.handshake import SWITCH as FIELDS
from gateway.proxy.heads import answer_head
from gateway.proxy.live import Binding
from gateway.proxy.request import Header
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.tunnels import Tunnels
from gateway.proxy.upgrading import SWITCH, UpgradingServer


async def tunnel(tunnels: Tunnels, binding: Binding, x: Exchange, delivery: Delivery, added: list[Header]) -> None:
    """Give the client the answer, and stay until both sides are gone.

    Raises:
        ClientGone: it did not wait.
    """
    connection = delivery.connection
    added = [field for field in added if field[0] != b"connection"]  # a worker that leaves says `close`
    fields = [*answer_head(connection.answer, added, binding.answer_edits), *FIELDS]
    head = b"".join([b"%b: %b\r\n" % field for field in fields])
    server: UpgradingServer = x.extensions[SWITCH]
    here = Tunnel(binding.route.websockets, client_lost=server.connection_lost)
    client, early = server.switch(b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\r\n", here)
    delivery.leave()
    service, answer = connection.hand_over(here.service)
    here.begin(client, early, service, answer)
    if server.leaving:  # the handshake was under way when the drain began, or came after
        here.drain()
    with tunnels.watch(here, x, binding):
        await here.ended
