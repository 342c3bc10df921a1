"""The data plane: seven steps from a request to its answer, told in `Gateway.serve`.

Steps 1 to 5 are plain functions over what is in memory; only an empty rate-limit lease waits for Redis. Without Redis,
database and worker the gateway goes on with the last table, keys and catalogue it knew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable
from typing import Final

from anumate.lib import clock
from anumate.lib.problem import KINDS, Problem
from anumate_integration_service.breaker import Outcome
from gateway.proxy.auth import authenticate
from gateway.proxy.balancer import Balancer, name_of
from gateway.proxy.config import Config, log_as_configured
from gateway.proxy.cors import Cors
from gateway.proxy.errors import answer_of, date_field
from gateway.proxy.exchange import Exchange, Header, Scope
from gateway.proxy.forwarder import Forwarder, Message, Receive, Send, stalled
from gateway.proxy.guard import Guard, Pass
from gateway.proxy.heads import VIA, Peers, is_loop, request_head
from gateway.proxy.limiter import Limiter, Policy
from gateway.proxy.live import Binding, Here, Live
from gateway.proxy.readiness import Readiness
from gateway.proxy.recorder import CLIENT_GONE, Recorder
from gateway.proxy.subscriber import SECTION, Subscriber
from gateway.proxy.upstream import ClientGone, TimedOut, UpstreamError
from registry.live.node import Node

logger = logging.getLogger("anumate.gateway")

TICK_SECONDS: Final = 1.0
_VIA: Final = (b"via", VIA)
_JSON: Final = (b"content-type", b"application/json")
_ABOUT: Final = b'{"service":"anumate-gateway","health":"/-/readyz"}'


class Gateway:
    """One worker's data plane, an ASGI application."""

    def __init__(self, config: Config) -> None:
        env = config.env
        self._now = clock.monotonic
        self._wall = clock.wall
        self.drain_seconds = env.gateway_drain_seconds
        self.node = Node(env, config.pepper, sections=(SECTION,), cache_dir=config.cache_dir)
        self.balancer = Balancer(self.node.catalog, random.random)
        self.guard = Guard(env, config.worker)
        self.live = Live(env, self.balancer, self.guard)
        self.limiter = Limiter(lambda: self.node.redis, config.worker)
        self.recorder = Recorder(lambda: self.node.redis)
        self.subscriber = Subscriber(self.live)
        self.readiness = Readiness(self.node, self.live)
        self.forwarder = Forwarder(self._added, self._now)
        self.peers = Peers(env.trusted_proxies)
        self.cors = Cors(env.cors_origins)
        self.node.on_section(SECTION, self.subscriber.take)
        self.node.catalog.listen(self.balancer.refresh)
        for job in (self._tick, self.limiter.run, self.recorder.run, lambda: self.guard.run(self.node.redis)):
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
        try:
            x.read()
            if own := self._own_answer(here, x):
                await self._say(x, *own, send)
                return
            binding = self.match(here, x)
            x.client = authenticate(self.node.keys, binding, x.known, self._wall())
            if (token := self.limit(binding, x)) is not None:
                await token
            await self.attempt(binding, x, receive, send)
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
            route = x.binding.route.name if x.binding else ""
            self.recorder.record(x.tenant, route, x.service, x.status or CLIENT_GONE, self._now() - x.started)

    def match(self, here: Here, x: Exchange) -> Binding:
        """The route that takes the request, among those of the tenant whose host it names."""
        if (via := x.known.get(b"via")) and is_loop(via):
            raise Problem("loop_detected", "The request has been through this gateway before.")
        x.tenant = self.node.keys.tenant_of_host(x.host)
        rule = here.router.match(x.tenant, x.host, x.method, x.path.matched, x.scope["headers"], x.query)
        binding = x.binding = here.bindings[rule.route.id]
        x.target = rule.upstream_path(x.path)
        x.timeout = binding.route.timeout_seconds
        return binding

    def limit(self, binding: Binding, x: Exchange) -> Awaitable[None] | None:
        """Take a token of the route's policy; what is answered must be awaited, where the bucket is not at hand."""
        policy = binding.policy
        if policy is None:
            return None
        now = x.started
        x.bucket = self.limiter.bucket(policy, self._subject(policy, binding, x), now)
        return self.limiter.take(x.bucket, now)

    async def attempt(self, binding: Binding, x: Exchange, receive: Receive, send: Send) -> None:
        """pick → guard → forward; again on another instance, but only where that is safe."""
        head = request_head(x, self.peers)
        if x.has_body:
            first = x.first_body = await _first_piece(receive, x.timeout)
            if first["type"] == "http.disconnect":
                raise ClientGone
        key = x.client.id if x.client and x.client.id else self.peers.client_address(x)
        tried: list[str] = []
        failure: UpstreamError | None = None
        permit: Pass | None = None
        try:
            while True:
                now = self._now()
                endpoint = self.balancer.pick(binding.shares, now, key, tried)
                if endpoint is None:
                    raise failure or _nobody(binding)
                x.service = endpoint.service
                permit = self.guard.enter(x.tenant, endpoint.service, now, permit)
                try:
                    await self.forwarder.forward(x, head, endpoint, permit, receive, send)
                    return
                except UpstreamError as error:
                    error.instance = name_of(endpoint)
                    if not _may_retry(error, x) or len(tried) >= binding.route.retries:
                        raise
                    tried.append(error.instance)
                    failure = error
        except UpstreamError:
            if permit is not None:
                permit.vote(Outcome.FAILURE, self._now())
            raise
        finally:
            if permit is not None:
                permit.vote(Outcome.CANCELLED, self._now())  # unless it has voted

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
        """Health, and browsers' questions whether they may ask: known before any route is."""
        if self.cors.is_preflight(x):
            return 204, self.cors.preflight_fields(x), b""
        path = x.path.matched
        if not path.startswith("/-/"):
            return None
        if path == "/-/livez":
            return 200, [_JSON], b'{"status":"alive"}'
        if path == "/-/readyz":
            return self.readiness.answer(here)
        raise Problem("not_found", "The gateway has /-/livez and /-/readyz.")

    def _added(self, x: Exchange) -> list[Header]:
        """The fields that every answer carries."""
        fields: list[Header] = [(b"x-request-id", x.request_id), _VIA]
        if x.bucket is not None:
            fields += x.bucket.fields(self._now())
        if self.cors.enabled:
            fields += self.cors.fields(x)
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
        await self.node.start()
        await self.subscriber.settled()

    def drain(self) -> None:
        """Be about to stop: readiness fails, and who asked by `node.on_leave` is told."""
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


async def _first_piece(receive: Receive, seconds: float) -> Message:
    """Raises Problem: request_timeout."""
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError:
        raise stalled(seconds) from None


def _may_retry(error: UpstreamError, x: Exchange) -> bool:
    """RFC 9110 §9.2.2: only what had no effect yet, or may have it twice. After a timeout no time is left."""
    if x.started_answer:
        return False
    return error.unsent or (x.replayable and not isinstance(error, TimedOut))


def _nobody(binding: Binding) -> Problem:
    services = ", ".join(dict.fromkeys(target.service for target in binding.route.targets))
    detail = f"No instance of {services} is live, enabled and not unhealthy."
    return Problem("no_healthy_instance", detail, headers={"Retry-After": "1"})


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    problem = Problem("malformed_request", "WebSocket connections are not taken here.")
    headers, body = answer_of(problem, b"")
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def create_app(config: Config | None = None) -> Gateway:
    """The gateway as an ASGI application; from the environment when no `config` is given."""
    config = config or Config.from_env()
    log_as_configured(config.env.log_level)
    return Gateway(config)
