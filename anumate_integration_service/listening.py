"""Register once the service listens: a registry that hears of it sooner sends traffic to a closed port."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from anumate_integration_service.client import DiscoveryClient

PAUSE: Final = 0.1
ATTEMPT: Final = 2.0


async def until_served(client: DiscoveryClient) -> None:
    """Return once the client's own endpoint takes connections."""
    host, port = await client.endpoint()
    while not await _connects(host, port):  # noqa: ASYNC110  (nothing tells us when a server listens)
        await asyncio.sleep(PAUSE)


async def _connects(host: str, port: int) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(ATTEMPT):
            family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
            with socket.socket(family, kind, protocol) as probe:
                _probes.add(probe)
                probe.setblocking(False)
                try:
                    await loop.sock_connect(probe, address)
                finally:
                    probe.close()
                    _probes.discard(probe)
                return True
    except OSError:  # a TimeoutError included
        return False


_probes: set[socket.socket] = set()


def _forked() -> None:
    """A server may fork its workers while we look; one that kept a copy of our end would wait for its own request."""
    for probe in _probes:
        probe.close()
    _probes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
