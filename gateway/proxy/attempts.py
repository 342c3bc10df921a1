"""A request's tries: pick an instance, ask its breaker, forward; again on another one, but only where that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from anumate.lib.clock import Clock
from anumate.lib.problem import Problem
from anumate_integration_service.balancing import Random
from anumate_integration_service.breaker import Outcome
from anumate_integration_service.pacing import full_jitter
from gateway.proxy.admission import Admission, Gate
from gateway.proxy.balancer import Balancer, Share
from gateway.proxy.bodies import Kept, bounded, first_piece
from gateway.proxy.canary import chosen as asked_for
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.exchange import NO_STATUSES, Exchange
from gateway.proxy.forwarder import Forwarder, Receive, Send
from gateway.proxy.guard import Guard, Pass
from gateway.proxy.heads import Peers, request_head
from gateway.proxy.hedging import Hedge, may_hedge
from gateway.proxy.live import Binding
from gateway.proxy.mirror import Mirrors
from gateway.proxy.upstream import ClientGone, Refused, TimedOut, UpstreamError

Chosen = tuple[Endpoint, Pass]
"""An instance, and the leave to send a request to its service."""
_OPEN: Final = Gate("A service without a limit", 0)


class Attempts:
    def __init__(
        self,
        balancer: Balancer,
        guard: Guard,
        admission: Admission,
        forwarder: Forwarder,
        peers: Peers,
        monotonic: Clock,
        rng: Random,
    ) -> None:
        self._balancer = balancer
        self._guard = guard
        self._admission = admission
        self._forwarder = forwarder
        self.peers = peers
        self._now = monotonic
        self._random = rng
        self._mirrors = Mirrors(balancer, monotonic, rng)

    async def send(self, binding: Binding, x: Exchange, receive: Receive, send: Send) -> None:
        """Have the request answered by an instance, within the route's total time.

        Raises:
            UpstreamError: none answered as it should. Problem. ClientGone.
        """
        total = binding.route.timeouts.total
        if not total or x.handshake is not None:  # a WebSocket lives as long as it is used
            await self._send(binding, x, receive, send)
            return
        try:
            async with asyncio.timeout(total) as within:
                await self._send(binding, x, receive, send)
        except TimeoutError:
            if not within.expired():
                raise
            late = TimedOut(f"The request as a whole took over {total:g} s.")
            late.instance = x.instance
            raise late from None

    async def _send(self, binding: Binding, x: Exchange, receive: Receive, send: Send) -> None:
        head = request_head(binding, x, self.peers)
        if x.has_body:
            receive = await self._read_ahead(binding, x, head, receive)
        elif binding.mirror is not None:
            self._mirrors.copy(binding.mirror, x, head, receive)
        shares = asked_for(binding.choices, binding.shares, x.fields.all) if binding.choices else binding.shares
        await self.go_on(binding, x, head, shares, self.first(binding, x, shares), None, receive, send)

    async def _read_ahead(self, binding: Binding, x: Exchange, head: bytes, receive: Receive) -> Receive:
        """Wait for the body's first piece: a client that sends none must not hold an instance."""
        if binding.body_bytes:
            receive = bounded(receive, binding.body_bytes, x)
        first = x.first_body = await first_piece(receive, x.timeout)
        if first["type"] == "http.disconnect":
            raise ClientGone
        if binding.mirror is not None:
            receive = self._mirrors.copy(binding.mirror, x, head, receive)
        if first.get("more_body") and binding.keeps and x.method in binding.repeatable:
            x.kept = Kept(receive, binding.keeps - len(first.get("body", b"")))
            return x.kept.receive
        return receive

    def first(self, binding: Binding, x: Exchange, shares: tuple[Share, ...]) -> Chosen:
        """The instance for the first try, and leave to send it there.

        Raises:
            Problem: no_healthy_instance, circuit_open.
        """
        x.address = self.peers.client_address(x)
        if binding.budget is not None:
            binding.budget.deposit(x.started)
        chosen = self._choose(x, shares, (), None)
        if chosen is None:
            raise _nobody(binding)
        return chosen

    def _choose(
        self, x: Exchange, shares: tuple[Share, ...], tried: Sequence[str], permit: Pass | None
    ) -> Chosen | None:
        now = self._now()
        key = x.client.id if x.client is not None and x.client.id else x.address
        endpoint = self._balancer.pick(shares, now, key, tried, x)
        if endpoint is None:
            return None
        x.service, x.instance = endpoint.service, endpoint.name
        return endpoint, self._guard.enter(x.tenant, endpoint.service, now, permit)

    async def go_on(
        self,
        binding: Binding,
        x: Exchange,
        head: bytes,
        shares: tuple[Share, ...],
        chosen: Chosen,
        failure: UpstreamError | None,
        receive: Receive,
        send: Send,
    ) -> None:
        """Try the instance chosen, and others as the route says. With a `failure`, that was the first try's.

        Raises:
            UpstreamError: none answered as it should. Problem. ClientGone.
        """
        endpoint, permit = chosen
        x.permit = permit
        tries, tried = 0, list[str]()  # more instances than tries, where it was hedged
        try:
            if x.has_body and x.first_body is None:
                receive = await self._read_ahead(binding, x, head, receive)
            while True:
                now = self._now()
                left = tries < binding.route.retries
                tried.append(endpoint.name)
                x.unwanted = binding.unwanted
                if x.unwanted and not (left and self._may_repeat(x, binding, now) and _others(shares, tried)):
                    x.unwanted = NO_STATUSES
                try:
                    if failure is not None and not tries:
                        raise failure
                    await self._forward(binding, x, head, shares, endpoint, tried, permit, receive, send)
                    return
                except UpstreamError as error:
                    error.instance = error.instance or x.instance
                    if not left or not self._may_retry(error, x, binding):
                        raise
                    failure = error
                await self._pause(binding, tries, failure)
                tries += 1
                if x.kept is not None:
                    x.kept.rewind()
                another = self._choose(x, shares, tried, permit)
                if another is None:
                    raise failure
                endpoint, permit = another
                x.permit = permit
        except UpstreamError:
            permit.vote(Outcome.FAILURE, self._now())
            raise
        finally:
            permit.vote(Outcome.CANCELLED, self._now())  # unless it has voted

    async def _forward(
        self,
        binding: Binding,
        x: Exchange,
        head: bytes,
        shares: tuple[Share, ...],
        endpoint: Endpoint,
        tried: list[str],
        permit: Pass,
        receive: Receive,
        send: Send,
    ) -> None:
        gate = self._admission.service(x.tenant, endpoint.service) or _OPEN
        if may_hedge(binding, x):
            hedge = Hedge(self._forwarder, binding, x, head, gate, self._now)
            others = self._others_of(binding, x, shares, endpoint, tried, gate)
            await hedge.forward(endpoint, others, permit, receive, send)
            return
        with gate:
            await self._forwarder.forward(binding, x, head, endpoint, permit, receive, send)

    def _others_of(
        self,
        binding: Binding,
        x: Exchange,
        shares: tuple[Share, ...],
        endpoint: Endpoint,
        tried: list[str],
        gate: Gate,
    ) -> Callable[[], Endpoint | None]:
        """Gives further instances of the target that was chosen, as long as the service's gate has room and the budget
        pays for them. They are tried then.
        """

        def another() -> Endpoint | None:
            if gate.full:
                return None
            now = self._now()
            share = next((share for share in shares if endpoint in share[0].endpoints), None)
            found = self._balancer.pick((share,), now, "", tried) if share else None
            if found is None or not (binding.budget is None or binding.budget.withdraw(now)):
                return None
            tried.append(found.name)
            if not _others(shares, tried):
                x.unwanted = NO_STATUSES
            return found

        return another

    def _may_repeat(self, x: Exchange, binding: Binding, now: float) -> bool:
        """Whether one more try of what an instance has seen is likely to be allowed."""
        return x.method in binding.repeatable and (binding.budget is None or binding.budget.left(now) >= 1)

    def _may_retry(self, error: UpstreamError, x: Exchange, binding: Binding) -> bool:
        """RFC 9110 §9.2.2: only what had no effect yet, or may have it twice; and only as the route's policy says."""
        if x.started_answer or error.reason not in binding.retry_on:
            return False
        if not x.has_its_body or not (error.unsent or x.method in binding.repeatable):
            return False
        return binding.budget is None or binding.budget.withdraw(self._now())

    async def _pause(self, binding: Binding, failures: int, failure: UpstreamError) -> None:
        retry = binding.route.retry
        pause = full_jitter(failures, self._random(), retry.backoff, retry.backoff_limit)
        if isinstance(failure, Refused):
            pause = max(pause, failure.retry_after)
        if pause:
            await asyncio.sleep(pause)


def _others(shares: tuple[Share, ...], tried: list[str]) -> bool:
    """Whether there is an instance besides those tried, the one that is tried now included."""
    return sum(len(group.endpoints) for group, _ in shares) > len(tried)


def _nobody(binding: Binding) -> Problem:
    services = ", ".join(dict.fromkeys(target.service for target in binding.route.targets))
    detail = f"No instance of {services} is live, enabled and not unhealthy."
    return Problem("no_healthy_instance", detail, headers={"Retry-After": "1"})
