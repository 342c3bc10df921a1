"""A request on its way to a service and back: fields, retries, and services that misbehave."""

from __future__ import annotations

import asyncio
import ipaddress

import httpx
import pytest

from gateway.proxy import upstream
from gateway.proxy.addresses import network_of
from gateway.proxy.exchange import Exchange
from gateway.proxy.heads import Peers
from gateway.proxy.request import Fields, Link
from gateway.proxy.table import RateLimit
from tests.conftest import eventually
from tests.gateway.proxy.conftest import OK, Call, Running, Service, World, a_route


async def test_it_forwards_a_request_and_its_answer(gateway: Running, service: Service) -> None:
    service.answers(
        b"HTTP/1.1 201 Created\r\nX-Own: 1\r\ncontent-length: 2\r\nset-cookie: a\r\nset-cookie: b\r\n\r\nhi"
    )
    answer = await gateway.client.post("/orders/7?a=1&b=%20", content=b"body", headers={"X-Mine": "yes"})
    assert (answer.status_code, answer.text, answer.headers["x-own"]) == (201, "hi", "1")
    assert answer.headers.get_list("set-cookie") == ["a", "b"]
    call = service.calls[0]
    assert (call.line, call.body, call.one("x-mine")) == ("POST /7?a=1&b=%20 HTTP/1.1", b"body", "yes")


async def test_the_service_is_told_where_the_request_came_from(gateway: Running, service: Service) -> None:
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/x",
        "Forwarded": "for=x",
    }
    await gateway.get(headers={**lies, "X-Real-IP": "6.6.6.6", "Host": "api.example.com"})
    call = service.calls[0]
    assert call.one("x-forwarded-for") == "127.0.0.1"
    assert call.one("x-forwarded-proto") == "http"
    assert call.one("x-forwarded-port") == str(gateway.port)
    assert call.one("x-forwarded-host") == call.one("host") == "api.example.com"
    assert not call.all("x-real-ip") + call.all("forwarded") + call.all("x-forwarded-prefix")


async def test_a_trusted_proxy_is_believed(world: World, service: Service) -> None:
    gateway = await world.gateway(trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    await gateway.knows("orders", 1)
    said = {
        "X-Forwarded-For": "6.6.6.6, 10.0.0.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example.com",
    }
    await gateway.get(headers=said)
    call = service.calls[0]
    assert call.one("x-forwarded-for") == "6.6.6.6, 10.0.0.9, 127.0.0.1"
    assert (call.one("x-forwarded-proto"), call.one("x-forwarded-host")) == ("https", "shop.example.com")
    assert call.one("x-forwarded-port") == str(gateway.port)


TRUSTED = ("127.0.0.0/8", "2001:db8:f::/48", "::ffff:10.0.0.0/104")


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("192.0.2.1", "6.6.6.6", "192.0.2.1"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
        ("::FFFF:C000:201", "", "192.0.2.1"),
        ("", "", ""),
        ("127.0.0.1", "", "127.0.0.1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.1:4711", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1, 10.0.0.9:80", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1, 10.0.0.9,, [2001:db8:F::1]:443", "192.0.2.1"),
        ("127.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "[::ffff:192.0.2.1]:4711", "192.0.2.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "2001:0DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("127.0.0.1", "unknown", "unknown"),
        ("127.0.0.1", "192.0.2.1:", "192.0.2.1:"),
        ("127.0.0.1", "192.0.2.1:port", "192.0.2.1:port"),
        ("127.0.0.1", "192.0.2.01", "192.0.2.01"),
        ("127.0.0.1", "[shop]:80", "[shop]:80"),
        ("127.0.0.1", "_" * 200, "_" * 200),
    ],
)
def test_a_client_has_one_address_however_it_is_written(peer: str, said: str, address: str) -> None:
    peers = Peers(tuple(ipaddress.ip_network(network) for network in TRUSTED))
    fields = Fields([(b"x-forwarded-for", said.encode())] if said else [])
    x = Exchange("GET", b"/", b"", "1.1", fields, Link(peer, "http", 80), 0.0)
    assert peers.client_address(x) == address


async def test_a_client_has_one_bucket_whatever_port_its_proxy_saw(world: World, service: Service) -> None:
    once = RateLimit("default", "once", rate=0.001, burst=1, by="address")
    world.publish(a_route(rate_limits=("once",)), rate_limits=(once,))
    gateway = await world.gateway(trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    await gateway.knows("orders", 1)
    statuses = [
        (await gateway.get(headers={"X-Forwarded-For": said})).status_code
        for said in ("192.0.2.1:4711", "192.0.2.1:4712", "::ffff:192.0.2.1", "192.0.2.2:4711")
    ]
    assert statuses == [200, 429, 429, 200]
    assert service.calls[0].one("x-forwarded-for") == "192.0.2.1:4711, 127.0.0.1"


async def test_a_client_has_one_bucket_whichever_address_of_its_ipv6_network_it_comes_from(
    world: World, service: Service
) -> None:
    once = RateLimit("default", "once", rate=0.001, burst=1, by="address")
    world.publish(a_route(rate_limits=("once",)), rate_limits=(once,))
    gateway = await world.gateway(trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    await gateway.knows("orders", 1)
    said = ("2001:db8::1", "[2001:db8::ffff:1]:443", "2001:db8:0:1::1", "::ffff:192.0.2.1", "::ffff:192.0.2.2")
    statuses = [(await gateway.get(headers={"X-Forwarded-For": each})).status_code for each in said]
    assert statuses == [200, 429, 200, 200, 200]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("192.0.2.1", "192.0.2.1"),
        ("unknown:1", "unknown:1"),
    ],
)
def test_an_ipv6_address_is_of_a_network_of_64_bits(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_the_key_is_hidden_from_the_service_and_who_asks_is_told(
    gateway: Running, world: World, service: Service
) -> None:
    await gateway.get(headers={"X-Consumer-Id": "forged", "x_consumer_id": "forged", "X_API_KEY": "x"})
    call = service.calls[0]
    assert call.one("x-consumer-id") == world.key_id
    assert (call.one("x-consumer-name"), call.one("x-consumer-tenant")) == ("a key", "default")
    assert world.key not in call.head.decode()
    assert not call.all("x_consumer_id") + call.all("x_api_key")


async def test_authorization_is_passed_on_unless_it_was_our_key(
    gateway: Running, world: World, service: Service
) -> None:
    await gateway.get(headers={"Authorization": "Bearer the-services-own"})
    assert service.calls[0].one("authorization") == "Bearer the-services-own"
    async with httpx.AsyncClient() as plain:
        url = f"http://127.0.0.1:{gateway.port}/orders"
        assert (await plain.get(url, headers={"Authorization": f"Bearer {world.key}"})).status_code == 200
    assert not service.calls[1].all("authorization")


async def test_fields_for_one_hop_stay_on_it(gateway: Running, service: Service) -> None:
    service.answers(
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\n"
        b"proxy-authenticate: x\r\nvia: 1.0 inner\r\ncontent-length: 2\r\n\r\nok"
    )
    nominated = {
        "Connection": "x-hop, x-forwarded-for, host, x-request-id",
        "X-Hop": "1",
        "TE": "trailers",
        "Proxy": "x",
    }
    answer = await gateway.get(headers={**nominated, "Via": "1.0 outer", "Keep-Alive": "timeout=1", "Expect": "x"})
    call = service.calls[0]
    for name in ("connection", "x-hop", "te", "proxy", "keep-alive", "expect"):
        assert not call.all(name), name
    assert call.one("x-forwarded-for")
    assert call.one("x-request-id")
    assert call.one("via") == "1.0 outer, 1.1 anumate"
    for name in ("x-secret", "keep-alive", "proxy-authenticate"):
        assert name not in answer.headers
    assert answer.headers.get_list("via") == ["1.0 inner", "1.1 anumate"]


async def test_a_request_id_is_kept_when_it_is_fit_and_made_when_not(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.1 200 OK\r\nx-request-id: the-services\r\ncontent-length: 0\r\n\r\n")
    kept = await gateway.get(headers={"X-Request-ID": "abc-123"})
    assert kept.headers.get_list("x-request-id") == ["abc-123"]
    assert service.calls[0].one("x-request-id") == "abc-123"
    made = await gateway.get(headers={"X-Request-ID": "a b" * 60})
    assert len(made.headers["x-request-id"]) == 32
    assert service.calls[1].one("x-request-id") == made.headers["x-request-id"]


async def test_a_trace_is_kept_when_it_is_valid_and_begun_when_not(gateway: Running, service: Service) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await gateway.get(headers={"traceparent": trace, "tracestate": "a=1"})
    assert (service.calls[0].one("traceparent"), service.calls[0].one("tracestate")) == (trace, "a=1")
    await gateway.get(headers={"traceparent": trace.replace("4", "0").replace("-00", "-zz"), "tracestate": "a=1"})
    assert service.calls[1].one("traceparent").startswith("00-")
    assert service.calls[1].one("traceparent") != trace
    assert not service.calls[1].all("tracestate")


async def test_a_request_that_comes_round_again_is_refused(gateway: Running, service: Service) -> None:
    answer = await gateway.get(headers={"Via": "1.1 other, 1.1 anumate"})
    assert (answer.status_code, answer.json()["code"]) == (508, "loop_detected")
    assert not service.calls


async def test_head_and_bodiless_answers_keep_the_connection_in_use(gateway: Running, service: Service) -> None:
    for answer, method, status in (
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", "HEAD", 200),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: x\r\n\r\n", "GET", 304),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", 204),
        (OK, "GET", 200),
    ):
        service.answers(answer)
        got = await gateway.client.request(method, "/orders")
        assert got.status_code == status
        assert got.text == ("ok" if answer is OK else "")
    assert service.connections == 1


async def test_informational_answers_are_waited_out(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK)
    answer = await gateway.get()
    assert (answer.status_code, answer.text, "link" in answer.headers) == (200, "ok", False)


async def test_an_answer_without_a_length_ends_with_its_connection(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", close=True)
    assert (await gateway.get()).text == "until the end"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\x16\x03\x01garbage\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nx: \x01\r\ncontent-length: 0\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000, "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nx: y", "upstream_closed"),
        (b"", "upstream_closed"),
    ],
)
async def test_a_service_that_answers_nonsense_is_a_bad_gateway(
    gateway: Running, service: Service, answer: bytes, code: str
) -> None:
    service.answers(answer, close=True)
    got = await gateway.client.post("/orders", content=b"x")
    assert (got.status_code, got.json()["code"], got.headers["x-anumate-reason"]) == (502, code, code)
    assert got.json()["request_id"] == got.headers["x-request-id"]
    service.answers(OK)
    assert (await gateway.get()).text == "ok"


async def test_bytes_after_an_answer_never_become_the_next_one(gateway: Running, service: Service) -> None:
    service.answers(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
    assert (await gateway.get()).text == "ok"
    service.answers(OK)
    assert (await gateway.get()).text == "ok"
    assert service.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ],
)
async def test_a_broken_off_answer_is_never_made_to_look_whole(
    gateway: Running, service: Service, answer: bytes
) -> None:
    service.answers(answer, close=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.get()


async def test_a_slow_service_times_out(world: World) -> None:
    world.publish(a_route(timeout_seconds=0.2))
    service = await world.service()

    async def slow(call: Call) -> None:
        await call.reader.read()  # until the gateway gives up

    service.handler = slow
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
    assert len(service.calls) == 1
    await eventually(lambda: service.open == 0, what="its connection to be closed")


async def test_it_tries_another_instance_where_nothing_was_sent(world: World) -> None:
    world.publish(a_route())
    world.register("orders", "a-dead", 1)
    await world.service("orders", "b")
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    for _ in range(4):
        assert (await gateway.client.post("/orders", content=b"x")).status_code == 200


async def test_it_says_which_instance_could_not_be_reached(world: World) -> None:
    world.publish(a_route())
    world.register("orders", "dead", 1)
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_connect_failed")
    assert answer.json()["detail"].startswith("Instance orders/dead:")


async def test_what_may_have_had_an_effect_is_not_sent_twice(world: World) -> None:
    world.publish(a_route(retries=5))
    services = [await world.service("orders", id) for id in "ab"]
    for service in services:
        service.answers(b"", close=True)
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    assert (await gateway.client.post("/orders", content=b"x")).json()["code"] == "upstream_closed"
    assert sum(len(service.calls) for service in services) == 1
    assert (await gateway.get()).json()["code"] == "upstream_closed"
    assert sum(len(service.calls) for service in services) == 3  # a GET goes to each once


async def test_retries_end_where_the_route_says(world: World) -> None:
    world.publish(a_route(retries=1))
    services = [await world.service("orders", id) for id in "abc"]
    for service in services:
        service.answers(b"", close=True)
    gateway = await world.gateway()
    await gateway.knows("orders", 3)
    await gateway.get()
    assert sum(len(service.calls) for service in services) == 2


async def test_a_connection_closed_while_idle_costs_nobody_an_error(gateway: Running, service: Service) -> None:
    async def answer_once(call: Call) -> None:
        await call.answer()
        if len(service.calls) == 1:
            await call.reader.readuntil(b"\r\n\r\n")  # takes the second request and hangs up on it
            call.writer.close()

    service.handler = answer_once
    assert (await gateway.get()).text == "ok"
    assert (await gateway.get()).text == "ok"
    assert service.connections == 2
    assert gateway.app.guard.report(0.0).breakers[0].failures == 0


async def test_idle_connections_are_closed_in_time(gateway: Running, service: Service) -> None:
    await gateway.get()
    (endpoint,) = gateway.app.balancer.endpoints()
    endpoint.pool.reap(asyncio.get_running_loop().time())
    assert service.open == 1
    endpoint.pool.reap(asyncio.get_running_loop().time() + upstream.IDLE_LIMIT + 1)
    await eventually(lambda: service.open == 0, what="the idle connection to be closed")


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(gateway: Running, service: Service) -> None:
    await gateway.get()
    (endpoint,) = gateway.app.balancer.endpoints()
    for connection in endpoint.pool._idle:
        connection.idle_since -= upstream.IDLE_LIMIT + 1
    assert endpoint.pool.take() is None
    await eventually(lambda: service.open == 0, what="the old connection to be closed")
