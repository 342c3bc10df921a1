"""The data plane: a request's steps to its answer, told in `Gateway.serve`.

All but the tries on instances are plain functions over what is in memory; only an empty rate-limit lease waits for
Redis. Without Redis, database and worker the gateway goes on with the last table, keys and catalogue it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any, Final

import msgspec

from anumate.lib import clock
from anumate.lib.problem import KINDS, Problem
from gateway.proxy import access_log, heap
from gateway.proxy.addresses import LONGEST, network_of
from gateway.proxy.admission import Admission
from gateway.proxy.attempts import Attempts
from gateway.proxy.auth import authenticate
from gateway.proxy.balancer import Balancer
from gateway.proxy.buckets import Policy, tightest
from gateway.proxy.config import Config, log_as_configured
from gateway.proxy.connections import Connections
from gateway.proxy.cors import Cors, asked_method
from gateway.proxy.direct import Direct
from gateway.proxy.entitlement import require_websockets
from gateway.proxy.errors import answer_of, date_field
from gateway.proxy.exchange import Exchange, Scope
from gateway.proxy.fields import VIA, is_loop
from gateway.proxy.forwarder import Forwarder, Receive, Send
from gateway.proxy.guard import Guard
from gateway.proxy.heads import Peers
from gateway.proxy.limiter import Limiter
from gateway.proxy.live import Binding, Here, Live
from gateway.proxy.options import AS_A_WHOLE, METHODS, allowed, last_hop
from gateway.proxy.recorder import CLIENT_GONE, Recorder
from gateway.proxy.request import Header, HeadLimits
from gateway.proxy.rewriting import location, without_keys
from gateway.proxy.router import Rule
from gateway.proxy.standing import Standing
from gateway.proxy.subscriber import SECTION, Subscriber
from gateway.proxy.switching import tunnel
from gateway.proxy.tls import usual
from gateway.proxy.tokens import Tokens
from gateway.proxy.tunnels import Tunnels
from gateway.proxy.upstream import ClientGone, UpstreamError
from registry.live.issuers import SECTION as ISSUERS
from registry.live.node import Node

logger = logging.getLogger("anumate.gateway")

TICK_SECONDS: Final = 1.0
TURN_SECONDS: Final = 0.001
"""For so long the loop waits for a thread that compiles a table: a fifth of what Python has by default."""
_VIA: Final = (b"via", VIA)
_CLOSE: Final = (b"connection", b"close")
_TEXT: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
Own = tuple[int, list[Header], bytes]
"""An answer of the gateway's own: status, fields, body."""
_ABOUT: Final = b'{"service":"anumate-gateway","health":"/-/readyz"}'


class Gateway:
    """One worker's data plane, an ASGI application."""

    def __init__(self, config: Config) -> None:
        env = config.env
        self.now = clock.monotonic
        self._wall = clock.wall
        self.drain_seconds = env.gateway_drain_seconds
        self.node = Node(env, config.pepper, sections=(SECTION, ISSUERS), cache_dir=config.cache_dir)
        self.balancer = Balancer(self.node.catalog, random.random, zone=env.gateway_zone)
        self.guard = Guard(env, config.worker, left_out=self.balancer.left_out, skipped=lambda: self.live.skipped)
        self.admission = Admission(env.gateway_max_concurrent)
        self.connections = Connections(env.gateway_max_connections)
        self.head_limits = HeadLimits(
            *(env.gateway_max_url_bytes, env.gateway_max_header_bytes, env.gateway_max_headers),
            env.gateway_head_seconds,
        )
        self.cors = Cors.anywhere(env.cors_origins)
        self.live = Live(env, self.balancer, self.guard, self.admission, self.cors)
        self.standing = Standing(config.worker, self.node, self.live, self.admission, self.connections)
        self.limiter = Limiter(lambda: self.node.redis, config.worker, workers=lambda: self.guard.workers)
        self.recorder = Recorder(lambda: self.node.redis)
        self.subscriber = Subscriber(self.live, config.pepper)
        self.tokens = Tokens(config.pepper)
        self.tunnels = Tunnels(
            lambda x: self.admit(self.live.current, x),
            lambda: (self.live.current, self.node.keys.era, self.tokens.era),
            self._wall,
            self.now,
        )
        self.forwarder = Forwarder(self.added, self.now, partial(tunnel, self.tunnels))
        self.peers = Peers(env.trusted_proxies)
        self.attempts = Attempts(
            self.balancer, self.guard, self.admission, self.forwarder, self.peers, self.now, random.random
        )
        self.direct = Direct(self)
        self.node.on_section(SECTION, self.subscriber.take)
        self.node.on_section(ISSUERS, self.tokens.take)
        self.node.catalog.listen(self.balancer.refresh)
        for job in (
            self._tick,
            heap.run,
            self.tokens.run,
            self.tunnels.run,
            self.limiter.run,
            self.recorder.run,
            self.direct.run,
            lambda: self.guard.run(self.node.redis),
        ):
            self.node.background(job)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await _refuse_websocket(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        x = Exchange.of_scope(scope, self.now())
        self.admission.whole.inside += 1
        await self.carry(x, self.from_start(x, receive, send), send)

    async def from_start(self, x: Exchange, receive: Receive, send: Send) -> None:
        here = self.live.current  # a swap never lands in the middle of a request
        x.read()
        if own := self._own_answer(here, x):
            await self._say(x, *own, send)
        elif x.method == "OPTIONS" and last_hop(x):
            x.tenant = self.node.keys.tenant_of_host(x.host)
            await self._say(x, 204, [(b"allow", allowed(here.router, x))], b"", send)
        else:
            binding, token = self.enter(here, x)
            await self.go_on(binding, token, x, receive, send)

    def enter(self, here: Here, x: Exchange) -> tuple[Binding, Awaitable[None] | None]:
        """The steps that take no waiting: match, authenticate, limit. Answers with what has to be awaited for a token.

        Raises:
            Problem: it may not pass.
        """
        whole = self.admission.whole
        if whole.inside > whole.most > 0:
            raise whole.refusal()
        binding = self.admit(here, x)
        return binding, self.limit(here, binding, x)

    def admit(self, here: Here, x: Exchange) -> Binding:
        """Match and authenticate, which an open WebSocket has to pass again.

        Raises:
            Problem: it may not pass.
        """
        binding = self.match(here, x)
        if not binding.route.redirect.status:
            if x.handshake is not None:
                require_websockets(binding.route)
            x.client = authenticate(self.node.keys, self.tokens, binding, x, self._wall(), self.peers.client_address)
        return binding

    def enter_again(self, here: Here, binding: Binding, x: Exchange) -> Awaitable[None] | None:
        """As `enter`, for a request that was let in before, under the same table and the same keys.

        Raises:
            Problem: it may not pass this time.
        """
        whole = self.admission.whole
        if whole.inside > whole.most > 0:
            raise whole.refusal()
        if x.client is not None:
            self.node.keys.use(x.client, self._wall())
        return self.limit(here, binding, x)

    async def go_on(
        self, binding: Binding, token: Awaitable[None] | None, x: Exchange, receive: Receive, send: Send
    ) -> None:
        """What is left to do for a request that has entered."""
        if token is not None:
            await token
        if binding.route.redirect.status:
            await self._redirect(binding, x, send)
        elif binding.gate is None:
            await self.attempts.send(binding, x, receive, send)
        else:
            with binding.gate:
                await self.attempts.send(binding, x, receive, send)

    async def carry(self, x: Exchange, steps: Coroutine[Any, Any, None], send: Send) -> None:
        """Take the steps, with an answer whatever becomes of them."""
        try:
            await steps
        except Problem as problem:
            await self._say(x, *self.refusal(x, problem), send)
        except UpstreamError as error:
            if (answer := self.blame(x, error)) is not None:
                await self._say(x, *answer, send)
        except ClientGone:
            x.status = CLIENT_GONE
        except Exception:
            await self._say(x, *self.mistake(x), send)
        finally:
            self.leave(x)

    def leave(self, x: Exchange) -> None:
        """The request is over."""
        self.admission.whole.inside -= 1
        self._note(x)

    def match(self, here: Here, x: Exchange) -> Binding:
        """The route that takes the request, among those of the tenant whose host it names."""
        if (via := x.known.get(b"via")) and is_loop(via):
            raise Problem("loop_detected", "The request has been through this gateway before.")
        rule = self._rule(here, x, x.method)
        binding = x.binding = here.bindings[rule.route.id]
        x.rewriting = rule.rewriting
        x.target = rule.rewriting.path(x.path)
        x.timeout = binding.route.timeout_seconds
        return binding

    def _rule(self, here: Here, x: Exchange, method: str) -> Rule:
        x.tenant = self.node.keys.tenant_of_host(x.host)
        return here.router.match(x.tenant, x.host, method, x.path.matched, x.fields.all, x.query)

    def limit(self, here: Here, binding: Binding, x: Exchange) -> Awaitable[None] | None:
        """Take a token of each policy; what is answered must be awaited, where one is not at hand.

        A key's own policy takes the place of those of the route that count by key.
        """
        policies, now = binding.policies, x.started
        if x.client is not None and x.client.rate_limit_policy:
            own = here.policies.get((x.client.tenant, x.client.rate_limit_policy))
            if own is not None:
                policies = (own, *(policy for policy in policies if policy.by != "key"))
        if len(policies) == 1:
            policy = policies[0]
            x.bucket = self.limiter.bucket(policy, self._subject(policy, binding, x), now)
            return self.limiter.take(x.bucket, now)
        if not policies:
            return None
        buckets = (self.limiter.bucket(policy, self._subject(policy, binding, x), now) for policy in policies)
        x.buckets = list(dict.fromkeys(buckets))  # a key's own policy may be one of the route's
        return self.limiter.take_all(x.buckets, now)

    def _note(self, x: Exchange) -> None:
        """Count the request, and leave a line about it where the route wants one."""
        binding, seconds = x.binding, (x.ended or self.now()) - x.started
        status = x.status = x.status or CLIENT_GONE
        self.recorder.record(x.tenant, binding.route.name if binding else "", x.service, status, seconds)
        if binding is not None and binding.access_log is not None:
            access_log.note(binding.access_log, x, seconds, self.peers.client_address(x), random.random())

    def _subject(self, policy: Policy, binding: Binding, x: Exchange) -> str:
        """Whose bucket it is. Who has no key is told by address."""
        by = policy.by
        if by == "key" and x.client and x.client.id:
            return x.client.id
        if by == "tenant":
            return "tenant"
        if by == "route":
            return binding.route.name
        if policy.header:
            value = next((value for name, value in x.fields.all if name == policy.header), b"")
            return value.decode("latin-1")
        address = self.peers.client_address(x)
        return network_of(address) if ":" in address and len(address) <= LONGEST else address

    # Answers of our own

    def _own_answer(self, here: Here, x: Exchange) -> Own | None:
        """Health, and browsers' questions whether they may ask, which come without a key."""
        if (rules := self._rules_asked_for(here, x)) is not None:
            return 204, rules.preflight_fields(x), b""
        path = x.path.matched
        if not path.startswith("/-/"):
            return None
        if path == "/-/livez":
            return 200, [_JSON], b'{"status":"alive"}'
        if path == "/-/readyz":
            return (200 if self.standing.ready else 503), [_JSON], msgspec.json.encode(self.standing.readiness())
        if path == "/-/metrics":
            return 200, [_TEXT], self.standing.metrics(self._wall())
        if path == AS_A_WHOLE and x.method == "OPTIONS":
            return 204, [(b"allow", ", ".join(METHODS).encode())], b""
        raise Problem("not_found", "The gateway has /-/livez, /-/readyz and /-/metrics.")

    def _rules_asked_for(self, here: Here, x: Exchange) -> Cors | None:
        """What a preflight asks about: the rules of the route that will take the request, or those for all."""
        if not (method := asked_method(x)):
            return None
        rules = self.cors
        with contextlib.suppress(Problem):
            x.binding = here.bindings[self._rule(here, x, method).route.id]
            rules = x.binding.cors
        return rules if rules.enabled else None

    async def _redirect(self, binding: Binding, x: Exchange, send: Send) -> None:
        redirect = binding.route.redirect
        query, _ = without_keys(binding.route, x.query)
        authority = x.known.get(b"host", b"localhost").decode("latin-1")
        path = x.rewriting.redirected(x.path)
        address = location(redirect, path, query, scheme=x.scheme, authority=authority, host=x.host)
        await self._say(x, redirect.status, [(b"location", address)], b"", send)

    def added(self, x: Exchange) -> list[Header]:
        """The fields that every answer carries, besides Via."""
        fields: list[Header] = [(b"x-request-id", x.request_id)]
        if x.bucket is not None:
            fields += x.bucket.fields(self.now())
        elif x.buckets:
            fields += tightest(x.buckets, self.now())
        cors = x.binding.cors if x.binding is not None else self.cors
        if cors.enabled:
            fields += cors.fields(x)
        if self.node.leaving:
            fields.append(_CLOSE)  # so that the client's next request goes to another worker
        return fields

    def refusal(self, x: Exchange, problem: Problem) -> Own:
        """The answer that says why."""
        if problem.code == "route_not_found" and x.path.matched == "/" and x.method in ("GET", "HEAD"):
            return 200, [_JSON], _ABOUT
        logger.info("refused %s: %s %s", _line(x), problem.code, x.request_id.decode())
        return _answer_of(problem, x)

    def blame(self, x: Exchange, error: UpstreamError) -> Own | None:
        """The answer that names the instance; None where one has begun."""
        logger.warning("%s: instance %s: %s %s", _line(x), error.instance, error, x.request_id.decode())
        if x.started_answer:
            x.permit.blame(self.now())
            return None
        headers = {"Retry-After": "1"} if KINDS[error.code].status == 503 else {}
        return _answer_of(Problem(error.code, f"Instance {error.instance}: {error}", headers=headers), x)

    def mistake(self, x: Exchange) -> Own:
        """The answer for an error of our own, from where it is handled."""
        logger.exception("request %s failed in the gateway", x.request_id.decode())
        return _answer_of(Problem("internal_error", "The gateway made a mistake; it is logged."), x)

    def said(self, x: Exchange, status: int, headers: list[Header], body: bytes) -> list[Header]:
        """All fields of an answer of our own."""
        x.status = status
        x.started_answer = True
        headers += self.added(x)
        headers.append(_VIA)
        headers.append(date_field(int(self._wall())))
        if status != 204 and not any(name == b"content-length" for name, _ in headers):
            headers.append((b"content-length", b"%d" % len(body)))
        return headers

    async def _say(self, x: Exchange, status: int, headers: list[Header], body: bytes, send: Send) -> None:
        if x.started_answer:
            return  # too late to say anything: the server closes the connection, which the client can tell
        headers = self.said(x, status, headers, body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # Coming and going

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def start(self) -> None:
        sys.setswitchinterval(TURN_SECONDS)
        self.connections.fit()
        await asyncio.to_thread(usual)  # the system's certificates, read once and beside the loop
        await self.node.start()
        await self.subscriber.settled()
        await self.guard.settled()

    def drain(self) -> None:
        """Say to everybody that this worker ends, while it still answers. The server calls it."""
        self.node.leave()

    async def stop(self) -> None:
        await self.recorder.flush()
        await self.guard.retire(self.node.redis)
        await self.node.stop()
        self.balancer.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.balancer.refresh_due()
            for endpoint in self.balancer.endpoints():
                endpoint.pool.reap(self.now())


def _answer_of(problem: Problem, x: Exchange) -> Own:
    return problem.status, *answer_of(problem, x.request_id)


def _line(x: Exchange) -> str:
    """Method and path as one line of a log may hold them, whatever bytes they are made of."""
    return ascii(f"{x.method} {x.raw_path.decode('latin-1')}")[1:-1]


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """For a server that speaks the protocol itself; the gateway's own hands its connection over."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    problem = Problem("malformed_request", "This server of the gateway does not hand its connections over.")
    headers, body = answer_of(problem, b"")
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def create_app(config: Config | None = None) -> Gateway:
    """The gateway as an ASGI application; from the environment when no `config` is given."""
    config = config or Config.from_env()
    log_as_configured(config.env.log_level)
    return Gateway(config)
