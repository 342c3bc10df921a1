"""A second try while the first still waits: for the few slow answers, at the price of a few requests more.

After Dean and Barroso, "The Tail at Scale" (2013), and Envoy's hedging. Only for methods that may reach a service
twice, and only once the whole body is at hand. The first answer wins, whatever its status; the others' connections are
closed. Each try takes a place of its own at the service's gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anumate.lib.clock import Clock
from gateway.proxy.admission import Gate
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.exchange import Exchange
from gateway.proxy.forwarder import Delivery, Forwarder, Receive, Send
from gateway.proxy.guard import Pass
from gateway.proxy.live import Binding
from gateway.proxy.upstream import UpstreamError


def may_hedge(binding: Binding, x: Exchange) -> bool:
    """Whether the route wants it and the request allows it."""
    if not binding.route.hedge.after or x.method not in binding.repeatable or x.handshake is not None:
        return False
    return x.first_body is None or not x.first_body.get("more_body")


class Hedge:
    """The tries of one request that run beside each other."""

    def __init__(
        self, forwarder: Forwarder, binding: Binding, x: Exchange, head: bytes, gate: Gate, monotonic: Clock
    ) -> None:
        self._forwarder = forwarder
        self._binding = binding
        self._x = x
        self._head = head
        self._gate = gate
        self._now = monotonic
        self._running: dict[asyncio.Task[Delivery], tuple[Endpoint, float]] = {}

    async def forward(
        self, first: Endpoint, another: Callable[[], Endpoint | None], permit: Pass, receive: Receive, send: Send
    ) -> None:
        """As `Forwarder.forward`; `another` gives the instance for a further try, as long as there may be one.

        Raises:
            UpstreamError: of the try that failed last. Problem: overloaded. ClientGone.
        """
        try:
            self._start(first, receive)
            task = await self._first_answer(another, permit, receive)
            endpoint, started = self._running[task]
            self._give_up([other for other in self._running if other is not task])
            self._x.service, self._x.instance = endpoint.service, endpoint.name
            await self._forwarder.answer(self._binding, self._x, task.result(), endpoint, permit, started, send)
        finally:
            self._give_up(list(self._running))

    def _give_up(self, tasks: list[asyncio.Task[Delivery]]) -> None:
        for task in tasks:
            endpoint, _ = self._running.pop(task)
            self._ended(endpoint)
            task.cancel()
            task.add_done_callback(_unheard)

    def _start(self, endpoint: Endpoint, receive: Receive) -> None:
        self._gate.enter()
        delivery = self._forwarder.deliver(self._binding, self._x, self._head, endpoint, receive)
        endpoint.started()
        self._running[asyncio.get_running_loop().create_task(delivery)] = endpoint, self._now()

    def _ended(self, endpoint: Endpoint) -> None:
        endpoint.ended()
        self._gate.leave()

    async def _first_answer(
        self, another: Callable[[], Endpoint | None], permit: Pass, receive: Receive
    ) -> asyncio.Task[Delivery]:
        hedge = self._binding.route.hedge
        more = hedge.most
        while True:
            wait = hedge.after if more else None
            done, _ = await asyncio.wait(self._running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    return task
                endpoint, started = self._running.pop(task)
                self._ended(endpoint)
                if isinstance(error, UpstreamError):
                    error.instance = endpoint.name
                    self._forwarder.failed(endpoint, permit, started, error)
                if not self._running or not isinstance(error, UpstreamError):
                    self._x.service, self._x.instance = endpoint.service, endpoint.name
                    raise error
            if not done:
                more -= 1
                if (endpoint_or_none := another()) is None:
                    more = 0
                else:
                    self._start(endpoint_or_none, receive)


def _unheard(task: asyncio.Task[Delivery]) -> None:
    """Of an answer that came beside the winner's, nobody hears."""
    if not task.cancelled() and task.exception() is None:
        task.result().end()
