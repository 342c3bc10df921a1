"""What an API key is good for on the gateway: its routes, its networks, where it may stand, and until when."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import msgspec
import pytest

from gateway.proxy.policies import Auth, Mirror, Redirect
from gateway.proxy.table import RateLimit
from registry.live import keys as api_keys
from registry.live.issuers import IssuerSection
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Running, Service, World, a_route
from tests.gateway.proxy.test_tokens import issuer, token


def record(world: World, **fields: Any) -> api_keys.KeyRecord:
    digest = api_keys.secret_hash(PEPPER, world.key)
    plain = api_keys.KeyRecord(world.key_id, "k", "default", digest, ("gateway:invoke",))
    return msgspec.structs.replace(plain, **fields)


async def a_gateway(world: World, *fields: api_keys.KeyRecord, **env: Any) -> Running:
    world.publish_keys(*fields or (record(world),))
    await world.service()
    gateway = await world.gateway(**env)
    await gateway.knows("orders", 1)
    return gateway


async def test_a_network_that_is_none_lets_nobody_in_and_shuts_no_other(world: World) -> None:
    world.publish(a_route())
    gateway = await a_gateway(world, record(world, networks=("10.0.0.0/33",)))
    assert (await gateway.get()).json()["code"] == "scope_missing"
    assert api_keys.within("127.0.0.1", ("10.0.0.0/33", "127.0.0.0/8"))


async def test_a_key_for_some_routes_is_refused_on_the_others(world: World) -> None:
    world.publish(a_route(), a_route("bills"))
    gateway = await a_gateway(world, record(world, routes=("orders",)))
    assert (await gateway.get("/orders")).status_code == 200
    refused = await gateway.get("/bills")
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert refused.json()["detail"] == "The key is not for route bills."


@pytest.mark.parametrize(("networks", "status"), [(("127.0.0.0/8",), 200), (("10.0.0.0/8", "2001:db8::/32"), 403)])
async def test_a_key_is_bound_to_its_networks(world: World, networks: tuple[str, ...], status: int) -> None:
    world.publish(a_route())
    gateway = await a_gateway(world, record(world, networks=networks))
    answer = await gateway.get()
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "scope_missing"


async def test_the_network_is_that_of_the_client_behind_a_trusted_proxy(world: World) -> None:
    world.publish(a_route())
    trusted = ipaddress.ip_network("127.0.0.0/8")
    gateway = await a_gateway(world, record(world, networks=("203.0.113.0/24",)), trusted_proxies=(trusted,))
    near = {"X-Forwarded-For": "203.0.113.9"}
    assert (await gateway.get(headers=near)).status_code == 200
    assert (await gateway.get(headers={"X-Forwarded-For": "198.51.100.1"})).status_code == 403


def test_networks_know_what_is_written_as_ipv6_and_what_is_no_address() -> None:
    assert api_keys.within("::ffff:10.1.2.3", ("10.0.0.0/8",))
    assert not api_keys.within("unix", ("0.0.0.0/0", "::/0"))


async def test_a_record_of_an_earlier_version_is_read() -> None:
    old = b'{"keys":[{"id":"a","name":"n","tenant":"default","hash":"h","scopes":[]}]}'
    (known,) = msgspec.json.decode(old, type=api_keys.KeySection).keys
    assert (known.routes, known.networks, known.rate_limit_policy) == ((), (), "")


async def test_a_key_may_stand_in_the_query_and_goes_no_further(world: World) -> None:
    world.publish(a_route(auth=Auth(query_parameter="api_key")))
    gateway = await a_gateway(world)
    (service,) = world.services
    wanted = f"GET /orders?a=%41%2F+b&api%5Fkey={world.key}&&c HTTP/1.1\r\nHost: h\r\n\r\n"
    assert (await gateway.raw(wanted.encode())).startswith(b"HTTP/1.1 200 ")
    assert service.calls[0].line == "GET /?a=%41%2F+b&&c HTTP/1.1"
    assert world.key.encode() not in service.calls[0].head


async def test_a_parameter_for_keys_never_reaches_a_service_whoever_lets_the_request_in(world: World) -> None:
    auth = Auth(("jwt",), query_parameter="api_key")
    world.publish(
        a_route(auth=Auth(query_parameter="api_key"), auth_required=False, mirror=Mirror("shadow")),
        a_route("bills", auth=auth),
        a_route("old", targets=(), auth=auth, redirect=Redirect(308, host="elsewhere")),
    )
    world._publish("issuers", msgspec.json.encode(IssuerSection((issuer("HS256"),))))
    shadow = await world.service("shadow", "s")
    gateway = await a_gateway(world)
    await gateway.knows("shadow", 1)
    await eventually(gateway.app.tokens._all, what="the issuer")
    query = f"?a=1&api%5fkey={world.key}&api_key={world.key}"
    assert (await gateway.get("/orders" + query)).status_code == 200
    bearer = {"Authorization": f"Bearer {token('HS256', exp=time.time() + 60)}"}
    assert (await gateway.get("/bills" + query, headers=bearer)).status_code == 200
    assert (await gateway.get("/old" + query)).headers["location"] == "http://elsewhere/old?a=1"
    await eventually(lambda: bool(shadow.calls), what="the copy")
    for call in world.services[-1].calls + shadow.calls:
        assert call.line.endswith("?a=1 HTTP/1.1")
        assert world.key not in call.head.decode()


async def test_a_key_in_the_query_beside_another_proof_is_refused(world: World) -> None:
    auth = Auth(query_parameter="api_key")
    world.publish(a_route(auth=auth), a_route("bills", auth=msgspec.structs.replace(auth, methods=("key", "jwt"))))
    gateway = await a_gateway(world)
    (service,) = world.services
    del gateway.client.headers["X-API-Key"]
    ways = {"X-API-Key": world.key}, {"Authorization": f"Bearer {world.key}"}, {"Authorization": "Bearer a.b.c"}
    for name in ("api_key", "api%5Fkey", "%61pi_ke%79"):
        for path in ("/orders", "/bills"):
            for fields in ways:
                answer = await gateway.get(f"{path}?{name}={world.key}", headers=fields)
                assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")
            answer = await gateway.get(f"{path}?{name}={world.key}&api_key={world.key}")
            assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")
    assert not service.calls


@pytest.mark.parametrize("value", ["Bearer  {0}", "bearer \t{0}", "Basic eA==, Bearer {0}"])
async def test_a_key_in_authorization_goes_no_further_however_it_is_written(world: World, value: str) -> None:
    world.publish(a_route(auth_required=False), a_route("bills"))
    gateway = await a_gateway(world)
    (service,) = world.services
    fields = {"Authorization": value.format(world.key)}
    assert (await gateway.get("/bills", headers=fields)).json()["code"] == "api_key_invalid"  # besides X-API-Key
    assert (await gateway.get("/orders", headers=fields)).status_code == 200
    (call,) = service.calls
    assert not call.all("authorization")


async def test_a_key_in_the_query_leaves_authorization_to_the_service(world: World) -> None:
    world.publish(a_route(auth=Auth(query_parameter="key")))
    gateway = await a_gateway(world)
    wanted = f"GET /orders?key={world.key} HTTP/1.1\r\nHost: h\r\nAuthorization: Basic eA==\r\n\r\n"
    assert (await gateway.raw(wanted.encode())).startswith(b"HTTP/1.1 200 ")
    assert world.services[0].calls[0].one("authorization") == "Basic eA=="


async def test_the_query_is_not_asked_where_the_route_does_not_say_so(gateway: Running, world: World) -> None:
    wanted = f"GET /orders?api_key={world.key} HTTP/1.1\r\nHost: h\r\n\r\n"
    assert b'"code":"api_key_missing"' in await gateway.raw(wanted.encode())


@pytest.mark.parametrize(
    "lines",
    [
        "X-API-Key: {0}\r\nX-API-Key: {0}\r\n",
        "X-API-Key: {0}\r\nAuthorization: Bearer {0}\r\n",
        "Authorization: Bearer {0}\r\nAuthorization: Bearer {0}\r\n",
    ],
)
async def test_several_keys_are_refused(gateway: Running, service: Service, world: World, lines: str) -> None:
    wanted = "GET /orders HTTP/1.1\r\nHost: h\r\n" + lines.format(world.key) + "\r\n"
    answer = await gateway.raw(wanted.encode())
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"code":"api_key_invalid"' in answer
    assert b"Send one API key" in answer
    assert not service.calls


async def test_the_old_key_works_beside_the_new_one_until_the_overlap_ends(world: World) -> None:
    world.publish(a_route())
    public_id, full = api_keys.make()
    ends = time.time() + 3600
    old = record(world, expires_at=ends)
    gateway = await a_gateway(world, old, record(world, id=public_id, hash=api_keys.secret_hash(PEPPER, full)))
    now = ends - 1
    gateway.app._wall = lambda: now
    assert [(await gateway.get(headers={"X-API-Key": key})).status_code for key in (world.key, full)] == [200, 200]
    now = ends
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (401, "api_key_expired")
    assert (await gateway.get(headers={"X-API-Key": full})).status_code == 200


async def test_a_revoked_key_ends_on_every_worker_within_a_second(world: World) -> None:
    world.publish(a_route())
    workers = [await a_gateway(world), await world.gateway()]
    await workers[1].knows("orders", 1)
    assert [(await each.get()).status_code for each in workers] == [200, 200]
    began = time.monotonic()
    world.publish_keys()
    for each in workers:
        await eventually(lambda each=each: world.key_id not in each.app.node.keys._records, what="the key to go")
    assert time.monotonic() - began < 1.0
    assert [(await each.get()).status_code for each in workers] == [401, 401]


async def test_a_keys_own_policy_takes_the_place_of_the_routes_that_count_by_key(world: World) -> None:
    await world.service()
    limits = (RateLimit("default", "strict", 0.001, 1, "key"), RateLimit("default", "wide", 0.001, 3, "key"))
    public_id, key = api_keys.make()
    digest = api_keys.secret_hash(PEPPER, key)
    record = api_keys.KeyRecord(
        public_id, "a partner", "default", digest, ("gateway:invoke",), rate_limit_policy="wide"
    )
    world.publish_keys(record)
    world.publish(a_route(rate_limits=("strict",)), rate_limits=limits)
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    statuses = [(await gateway.get(headers={"X-API-Key": key})).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_a_keys_own_policy_that_the_route_has_too_counts_once(world: World) -> None:
    world.publish(
        a_route(rate_limits=("shared", "wide")),
        rate_limits=(
            RateLimit("default", "shared", 0.001, 4, "tenant"),
            RateLimit("default", "wide", 0.001, 9, "route"),
        ),
    )
    gateway = await a_gateway(world, record(world, rate_limit_policy="shared"))
    assert [(await gateway.get()).status_code for _ in range(6)] == [200] * 4 + [429] * 2
