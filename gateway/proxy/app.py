"""The data plane: a request's steps to its answer, told in `Gateway.serve`.

All but the tries on instances are plain functions over what is in memory; only an empty rate-limit lease waits for
Redis. Without Redis, database and worker the gateway goes on with the last table, keys and catalogue it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable
from typing import Final

import msgspec

from anumate.lib import clock
from anumate.lib.problem import KINDS, Problem
from gateway.proxy import access_log
from gateway.proxy.admission import Admission
from gateway.proxy.attempts import Attempts
from gateway.proxy.auth import authenticate
from gateway.proxy.balancer import Balancer
from gateway.proxy.config import Config, log_as_configured
from gateway.proxy.cors import Cors, asked_method
from gateway.proxy.entitlement import require_websockets
from gateway.proxy.errors import answer_of, date_field
from gateway.proxy.exchange import Exchange, Header, Scope
from gateway.proxy.fields import is_loop
from gateway.proxy.forwarder import Forwarder, Receive, Send
from gateway.proxy.guard import Guard
from gateway.proxy.heads import VIA, Peers
from gateway.proxy.limiter import Limiter, Policy, tightest
from gateway.proxy.live import Binding, Here, Live
from gateway.proxy.options import AS_A_WHOLE, METHODS, allowed, last_hop
from gateway.proxy.recorder import CLIENT_GONE, Recorder
from gateway.proxy.rewriting import location
from gateway.proxy.router import Rule
from gateway.proxy.standing import Standing
from gateway.proxy.subscriber import SECTION, Subscriber
from gateway.proxy.switching import tunnel
from gateway.proxy.tls import usual
from gateway.proxy.tokens import Tokens
from gateway.proxy.upstream import ClientGone, UpstreamError
from registry.live.issuers import SECTION as ISSUERS
from registry.live.node import Node

logger = logging.getLogger("anumate.gateway")

TICK_SECONDS: Final = 1.0
_VIA: Final = (b"via", VIA)
_CLOSE: Final = (b"connection", b"close")
_TEXT: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_ABOUT: Final = b'{"service":"anumate-gateway","health":"/-/readyz"}'


class Gateway:
    """One worker's data plane, an ASGI application."""

    def __init__(self, config: Config) -> None:
        env = config.env
        self._now = clock.monotonic
        self._wall = clock.wall
        self.drain_seconds = env.gateway_drain_seconds
        self.node = Node(env, config.pepper, sections=(SECTION, ISSUERS), cache_dir=config.cache_dir)
        self.balancer = Balancer(self.node.catalog, random.random, zone=env.gateway_zone)
        self.guard = Guard(env, config.worker, left_out=self.balancer.left_out)
        self.admission = Admission(env.gateway_max_concurrent)
        self.cors = Cors.anywhere(env.cors_origins)
        self.live = Live(env, self.balancer, self.guard, self.admission, self.cors)
        self.standing = Standing(config.worker, self.node, self.live, self.admission)
        self.limiter = Limiter(lambda: self.node.redis, config.worker)
        self.recorder = Recorder(lambda: self.node.redis)
        self.subscriber = Subscriber(self.live, config.pepper)
        self.forwarder = Forwarder(self._added, self._now, tunnel)
        self.tokens = Tokens(config.pepper)
        self.peers = Peers(env.trusted_proxies)
        self.attempts = Attempts(
            self.balancer, self.guard, self.admission, self.forwarder, self.peers, self._now, random.random
        )
        self.node.on_section(SECTION, self.subscriber.take)
        self.node.on_section(ISSUERS, self.tokens.take)
        self.node.catalog.listen(self.balancer.refresh)
        for job in (
            self._tick,
            self.tokens.run,
            self.limiter.run,
            self.recorder.run,
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
        here = self.live.current  # a swap never lands in the middle of a request
        x = Exchange(scope, self._now())
        whole = self.admission.whole
        whole.inside += 1
        try:
            x.read()
            if own := self._own_answer(here, x):
                await self._say(x, *own, send)
                return
            if whole.inside > whole.most > 0:
                raise whole.refusal()
            if x.method == "OPTIONS" and last_hop(x):
                x.tenant = self.node.keys.tenant_of_host(x.host)
                await self._say(x, 204, [(b"allow", allowed(here.router, x))], b"", send)
                return
            binding = self.match(here, x)
            if binding.route.redirect.status:
                await self._redirect(binding, x, send)
                return
            if x.handshake is not None:
                require_websockets(binding.route)
            x.client = authenticate(self.node.keys, self.tokens, binding, x, self._wall(), self.peers.client_address)
            if (token := self.limit(here, binding, x)) is not None:
                await token
            if binding.gate is None:
                await self.attempts.send(binding, x, receive, send)
            else:
                with binding.gate:
                    await self.attempts.send(binding, x, receive, send)
        except Problem as problem:
            await self._refuse(x, problem, send)
        except UpstreamError as error:
            await self._blame(x, error, send)
        except ClientGone:
            x.status = CLIENT_GONE
        except Exception:
            logger.exception("request %s failed in the gateway", x.request_id.decode())
            await self._answer(x, Problem("internal_error", "The gateway made a mistake; it is logged."), send)
        finally:
            whole.inside -= 1
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
        return here.router.match(x.tenant, x.host, method, x.path.matched, x.scope["headers"], x.query)

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
        x.buckets = [self.limiter.bucket(policy, self._subject(policy, binding, x), now) for policy in policies]
        return self.limiter.take_all(x.buckets, now)

    def _note(self, x: Exchange) -> None:
        """Count the request, and leave a line about it where the route wants one."""
        binding, seconds = x.binding, (x.ended or self._now()) - x.started
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
            value = next((value for name, value in x.scope["headers"] if name == policy.header), b"")
            return value.decode("latin-1")
        return self.peers.client_address(x)

    # Answers of our own

    def _own_answer(self, here: Here, x: Exchange) -> tuple[int, list[Header], bytes] | None:
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
        authority = x.known.get(b"host", b"localhost").decode("latin-1")
        path = x.rewriting.redirected(x.path)
        address = location(redirect, path, x.query, scheme=x.scheme, authority=authority, host=x.host)
        await self._say(x, redirect.status, [(b"location", address)], b"", send)

    def _added(self, x: Exchange) -> list[Header]:
        """The fields that every answer carries."""
        fields: list[Header] = [(b"x-request-id", x.request_id), _VIA]
        if x.bucket is not None:
            fields += x.bucket.fields(self._now())
        elif x.buckets:
            fields += tightest(x.buckets, self._now())
        cors = x.binding.cors if x.binding is not None else self.cors
        if cors.enabled:
            fields += cors.fields(x)
        if self.node.leaving:
            fields.append(_CLOSE)  # so that the client's next request goes to another worker
        return fields

    async def _refuse(self, x: Exchange, problem: Problem, send: Send) -> None:
        if problem.code == "route_not_found" and x.path.matched == "/" and x.method in ("GET", "HEAD"):
            await self._say(x, 200, [_JSON], _ABOUT, send)
            return
        logger.info("refused %s: %s %s", _line(x), problem.code, x.request_id.decode())
        await self._answer(x, problem, send)

    async def _blame(self, x: Exchange, error: UpstreamError, send: Send) -> None:
        logger.warning("%s: instance %s: %s %s", _line(x), error.instance, error, x.request_id.decode())
        if x.started_answer:
            self.guard.blame(x.tenant, x.service, self._now())
            return
        headers = {"Retry-After": "1"} if KINDS[error.code].status == 503 else {}
        await self._answer(x, Problem(error.code, f"Instance {error.instance}: {error}", headers=headers), send)

    async def _answer(self, x: Exchange, problem: Problem, send: Send) -> None:
        if x.started_answer:
            return  # too late to say anything: the server closes the connection, which the client can tell
        headers, body = answer_of(problem, x.request_id)
        await self._say(x, problem.status, headers, body, send)

    async def _say(self, x: Exchange, status: int, headers: list[Header], body: bytes, send: Send) -> None:
        x.status = status
        x.started_answer = True
        headers += self._added(x)
        headers.append(date_field(int(self._wall())))
        if status != 204 and not any(name == b"content-length" for name, _ in headers):
            headers.append((b"content-length", b"%d" % len(body)))
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
        await asyncio.to_thread(usual)  # the system's certificates, read once and beside the loop
        await self.node.start()
        await self.subscriber.settled()

    def drain(self) -> None:
        """Say to everybody that this worker ends, while it still answers. The server calls it."""
        self.node.leave()

    async def stop(self) -> None:
        await self.recorder.flush()
        await self.guard.retire(self.node.redis)
        await self.node.stop()
        self.balancer.close()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.balancer.refresh_due()
            for endpoint in self.balancer.endpoints():
                endpoint.pool.reap(loop.time())


def _line(x: Exchange) -> str:
    """Method and path as one line of a log may hold them, whatever bytes they are made of."""
    return ascii(f"{x.method} {x.scope.get('raw_path', b'').decode('latin-1')}")[1:-1]


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
