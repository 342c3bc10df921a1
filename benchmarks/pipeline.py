"""What a request costs the gateway itself: bytes in, bytes out, without sockets, a loop or other processes.

`python -m benchmarks.pipeline` tells microseconds a request, `python -m benchmarks.pipeline profile` where they go.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import time
from typing import Any, cast

import uvicorn

from anumate.lib.env import Env
from benchmarks.ours import PEPPER, PLENTY, others, route
from benchmarks.stand import rows
from gateway.proxy.app import Gateway
from gateway.proxy.config import SERVER_OPTIONS, Config
from gateway.proxy.drain import State
from gateway.proxy.live import Compiled
from gateway.proxy.policies import Address
from gateway.proxy.serving import GatewayServer
from gateway.proxy.table import RoutingTable, Upstream, encode
from gateway.proxy.upstream import Connection
from registry.live import keys

REQUESTS = 500
ROUNDS = 120
BODY = b'{"id": 7, "status": "open", "total": 42.5, "currency": "EUR"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 28 Nov 2026 02:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (len(BODY), BODY)
)


class Wire:
    """A transport that keeps the last piece written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written = data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8080)}.get(name, default)

    def set_write_buffer_limits(self, high: int) -> None:
        pass


class Pipeline:
    """A gateway with two instances of a service, a client's connection and one to each instance."""

    def __init__(self) -> None:
        public_id, key = keys.make()
        record = keys.KeyRecord(public_id, "bench", "default", keys.secret_hash(PEPPER, key), ("gateway:invoke",))
        self.gateway = Gateway(Config(env=Env(), pepper=PEPPER))
        self.gateway.node.keys.replace([record], [keys.TenantRecord("default")])
        routes = (route(1, "orders", "orders"), *others(99))
        places = (Address("127.0.0.1", 9001), Address("127.0.0.1", 9002))
        upstreams = (Upstream("default", "orders", addresses=places),)
        self.gateway.live.swap(Compiled(encode(RoutingTable(1, routes, upstreams, (PLENTY,))), PEPPER))
        for endpoint in self.gateway.balancer.endpoints():
            connection = Connection(endpoint.pool)
            connection.connection_made(cast(asyncio.BaseTransport, Wire()))
            endpoint.pool.keep(connection)
        config = uvicorn.Config(self.gateway, **SERVER_OPTIONS, log_config=None)
        self.server = GatewayServer(config, State(), {}, asyncio.get_running_loop())
        self.server.connection_made(Wire())
        self._key = key.encode()
        self._grant(public_id)

    def head(self, number: int) -> bytes:
        return (
            b"GET /orders/%d HTTP/1.1\r\nHost: api.example.com\r\nX-API-Key: %b\r\nUser-Agent: bench/1\r\n"
            b"Accept: application/json\r\nX-Number: %d\r\n\r\n" % (number, self._key, number)
        )

    def run(self, heads: list[bytes]) -> float:
        """Seconds of processor time that it takes to answer them."""
        server, relays = self.server, self.gateway.direct.relays
        began = time.thread_time()
        for head in heads:
            server.data_received(head)
            (relay,) = relays
            relay.connection.data_received(ANSWER)
        return time.thread_time() - began

    def _grant(self, id: str) -> None:
        """Let the key have tokens, as if Redis had just leased them."""
        binding = self.gateway.live.current.bindings[1]
        bucket = self.gateway.limiter.bucket(binding.policies[0], id, 0.0)
        bucket.left = bucket.leased = 10**9
        bucket.ends = float("inf")


async def _measure(profile: bool) -> None:
    here = Pipeline()
    same = [here.head(7)] * REQUESTS
    if profile:
        with cProfile.Profile() as found:
            for _ in range(ROUNDS):
                here.run(same)
        pstats.Stats(found).sort_stats("tottime").print_stats(110)
        return
    seen: dict[str, list[float]] = {"the same head": [], "another head each time": []}
    for number in range(0, ROUNDS * REQUESTS, REQUESTS):
        different = [here.head(each) for each in range(number, number + REQUESTS)]
        for name, heads in zip(seen, (same, different), strict=True):
            seen[name].append(here.run(heads) / REQUESTS * 1e6)
    ranks = ROUNDS // 10, ROUNDS // 2
    lines = [(name, *(f"{sorted(costs)[rank]:.1f}" for rank in ranks)) for name, costs in seen.items()]
    rows("The gateway's own part of a request, in us", ("", "quiet", "median"), lines)


def main(*arguments: str) -> None:
    asyncio.run(_measure("profile" in arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
