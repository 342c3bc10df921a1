"""Copies of requests for another service, to try it on real traffic. Nobody waits for their answers or sees them.

A copy has the whole body, or there is none: what comes in several pieces is kept on its way to the instance, up to the
mirror's limit, and copied when the last piece was there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from anumate.lib.clock import Clock
from anumate_integration_service.balancing import Random
from gateway.proxy.balancer import Balancer, Share
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.exchange import Exchange
from gateway.proxy.upstream import UpstreamError

if TYPE_CHECKING:
    from gateway.proxy.forwarder import Message, Receive

logger = logging.getLogger("anumate.gateway")

MOST: Final = 100
"""Copies under way in one worker; beyond that, none is made: the mirror must not cost what it mirrors."""
SECONDS: Final = 10.0


class Reflection:
    """A route's mirror, bound: where copies go, and of how many and how large requests."""

    __slots__ = ("body_bytes", "sample", "shares")

    def __init__(self, share: Share, sample: float, body_bytes: int) -> None:
        self.shares = (share,)
        self.sample = sample
        self.body_bytes = body_bytes


class Mirrors:
    def __init__(self, balancer: Balancer, monotonic: Clock, rng: Random) -> None:
        self._balancer = balancer
        self._now = monotonic
        self._random = rng
        self._under_way: set[asyncio.Task[None]] = set()

    def copy(self, mirror: Reflection, x: Exchange, head: bytes, receive: Receive) -> Receive:
        """Send a copy, if chance wants one, as soon as the whole body was there; answers what gives the rest of it."""
        if self._random() >= mirror.sample or self._busy:
            return receive
        if x.content_length is not None and int(x.content_length) > mirror.body_bytes:
            return receive
        first = x.first_body or {}
        body, more = bytearray(first.get("body", b"")), first.get("more_body", False)
        if len(body) > mirror.body_bytes:
            return receive
        if not more:
            self._begin(mirror, x, head, bytes(body))
            return receive

        async def kept() -> Message:
            nonlocal more
            message = await receive()
            if more:
                body.extend(message.get("body", b""))
                more = message.get("more_body", False)
                if message["type"] != "http.request" or len(body) > mirror.body_bytes:
                    more = False
                    body.clear()
                elif not more:
                    self._begin(mirror, x, head, bytes(body))
            return message

        return kept

    @property
    def _busy(self) -> bool:
        return len(self._under_way) >= MOST

    def _begin(self, mirror: Reflection, x: Exchange, head: bytes, body: bytes) -> None:
        if self._busy:
            return
        if x.has_body and x.content_length is None:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        endpoint = self._balancer.pick(mirror.shares, self._now(), x.request_id.decode())
        if endpoint is None:
            return
        request = (endpoint.named(head) if x.nameless else head) + body
        task = asyncio.get_running_loop().create_task(_send(endpoint, request, bodiless=x.method == "HEAD"))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def _send(endpoint: Endpoint, request: bytes, *, bodiless: bool) -> None:
    with contextlib.suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(SECONDS):
            connection = endpoint.pool.take() or await endpoint.pool.connect(SECONDS)
            try:
                connection.begin(request, bodiless_answer=bodiless)
                await connection.head()
                while not connection.complete:
                    await connection.read()
                connection.take_body()
            finally:
                connection.release()
