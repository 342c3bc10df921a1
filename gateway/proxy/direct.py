"""The common request, from parser callback to parser callback: no task, no timer, no message on its way.

It takes the same steps as `Gateway.serve`; what has to be waited for (a token, a connection, a further try) goes on in
a task, from where it is. Measured in turn: half the processor time of a request with a task each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from anumate.lib.problem import Problem
from gateway.proxy.auth import consumer_lines
from gateway.proxy.exchange import Exchange
from gateway.proxy.forwarder import Receive, Send
from gateway.proxy.heads import answer_lines, filled, template
from gateway.proxy.live import Binding, Here
from gateway.proxy.paths import read_path
from gateway.proxy.recall import Caller, Known, Memory
from gateway.proxy.relay import Client, Relay
from gateway.proxy.request import Request, read_request
from gateway.proxy.upstream import UpstreamError

if TYPE_CHECKING:
    from gateway.proxy.app import Gateway, Own

Steps = Callable[[Receive, Send], Coroutine[Any, Any, None]]
"""What a task has to do for a request that cannot go on without waiting."""

SWEEP_SECONDS: Final = 0.05
"""How often deadlines are looked at: by that much one may be passed."""


class Direct:
    """Takes requests from the server, for a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.now = gateway.now
        self._limits = gateway.head_limits
        self.relays: set[Relay] = set()
        self._memory = Memory(gateway.node.keys)

    def take(self, data: bytes, client: Client) -> Steps | bool:
        """Begin with the request in these bytes. True: it is taken care of. False: it is for the long way, from its
        beginning. Else it needs a task, to do what is answered.
        """
        gateway = self._gateway
        here = gateway.live.current  # a swap never lands in the middle of a request
        recalled = self._memory.recall(data, here)
        if recalled is not None:
            return self._take_again(here, *recalled, client)
        request = read_request(data, self._limits)
        if request is None:
            return False
        x = Exchange.of_request(request, client.link, self.now())
        gateway.admission.whole.inside += 1
        try:
            x.path = read_path(request.path)
            if x.path.matched.startswith("/-/"):
                return self._task(x, gateway.from_start, x)
            binding, token = gateway.enter(here, x)
            if token is not None or not binding.direct or not self._is_at_hand(binding, x, request):
                return self._task(x, gateway.go_on, binding, token, x)
            head = template(binding, x)
            if not request.length:
                self._memory.remember(data, x, head, here, again=request.fields.again)
            request.fields.again = True
            lines = consumer_lines(x.client)
            return self._begin(binding, x, filled(head, lines, x, gateway.peers), request.length, request.body, client)
        except Problem as problem:
            own = gateway.refusal(x, problem)
        except Exception:
            own = gateway.mistake(x)
        self._say(x, client, own, request.length - len(request.body))
        return True

    def _take_again(self, here: Here, known: Known, caller: Caller | None, client: Client) -> Steps | bool:
        gateway, binding = self._gateway, known.x.binding
        assert binding is not None  # noqa: S101  # or it would not have been let in
        x = Exchange.like(known.x, caller and caller.client, client.link, self.now())
        gateway.admission.whole.inside += 1
        try:
            token = gateway.enter_again(here, binding, x)
            if token is not None:
                return self._task(x, gateway.go_on, binding, token, x)
            head = filled(known.head, caller.lines if caller else b"", x, gateway.peers)
            return self._begin(binding, x, head, 0, b"", client)
        except Problem as problem:
            own = gateway.refusal(x, problem)
        except Exception:
            own = gateway.mistake(x)
        self._say(x, client, own, 0)
        return True

    def _is_at_hand(self, binding: Binding, x: Exchange, request: Request) -> bool:
        """Whether nothing but its bytes has to be waited for, and none of them kept."""
        if not x.has_body:
            return True
        if binding.body_bytes and request.length > binding.body_bytes:
            return False
        whole = len(request.body) == request.length
        return whole or bool(request.body and not (binding.keeps and x.method in binding.repeatable))

    def _begin(
        self, binding: Binding, x: Exchange, head: bytes, length: int, body: bytes, client: Client
    ) -> Steps | bool:
        gateway = self._gateway
        chosen = endpoint, permit = gateway.attempts.first(binding, x, binding.shares)
        connection = endpoint.pool.take()
        if connection is None or gateway.admission.service(x.tenant, endpoint.service) is not None:
            if connection is not None:
                connection.release()
            return self._task(x, gateway.attempts.go_on, binding, x, head, binding.shares, chosen, None)
        relay = Relay(self, binding, x, head, endpoint, permit, connection, client)
        self.relays.add(relay)
        relay.begin(length, body)
        return True

    def _task(self, x: Exchange, step: Callable[..., Coroutine[Any, Any, None]], *known: Any) -> Steps:
        carry = self._gateway.carry

        def steps(receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            return carry(x, step(*known, receive, send), send)

        return steps

    def _say(self, x: Exchange, client: Client, own: Own, left: int) -> None:
        status, headers, body = own
        fields = self._gateway.said(x, status, headers, body)
        if x.last and not self.leaving:
            fields.append((b"connection", b"close"))
        self._gateway.leave(x)
        client.answer(self.now(), status, fields, body, left)

    # What a relay has to tell

    def over(self, relay: Relay) -> None:
        """It has come to its end, good or bad."""
        self.relays.discard(relay)
        self._gateway.leave(relay.x)

    def failed(self, relay: Relay, error: Exception | None) -> None:
        """The instance has failed, or (None) its connection was closed under our hands. What had begun to be answered
        is cut off; for the rest, a task does what is left to do."""
        self.relays.discard(relay)
        gateway, x = self._gateway, relay.x
        if not x.started_answer:
            chosen = relay.endpoint, relay.permit
            known = relay.binding, x, relay.head, relay.binding.shares, chosen, error
            relay.client.go_on(self._task(x, gateway.attempts.go_on, *known), last=x.last)
            return
        if isinstance(error, UpstreamError):
            error.instance = x.instance
            x.permit = relay.permit
            gateway.blame(x, error)
        elif isinstance(error, Problem):
            gateway.refusal(x, error)
        gateway.leave(x)
        relay.client.cut()

    def lines(self, relay: Relay) -> bytes:
        """The fields of the instance's answer that the client gets, and ours."""
        gateway, binding, x, answer = self._gateway, relay.binding, relay.x, relay.connection.answer
        edits = binding.answer_edits
        if edits or x.buckets or answer.speaks_for_us or binding.cors.enabled or gateway.node.leaving:
            return answer_lines(answer, gateway.added(x), edits)
        # What `added` says where nothing is out of the ordinary, without its list: 2 us less.
        limits = x.bucket.lines(self.now()) if x.bucket is not None else b""
        return b"%bx-request-id: %b\r\n%b" % (answer.lines, x.request_id, limits)

    def missed(self, relay: Relay, error: UpstreamError) -> None:
        """Have balancing know of a failure."""
        self._gateway.forwarder.failed(relay.endpoint, relay.permit, relay.started, error)

    @property
    def leaving(self) -> bool:
        return self._gateway.node.leaving

    async def run(self) -> None:
        """Look at deadlines, until it is cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self.relays:
                now = self.now()
                for relay in tuple(self.relays):
                    relay.check(now)
