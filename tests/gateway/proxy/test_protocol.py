"""An intermediary's duties that have no other place: Max-Forwards, OPTIONS *, interim answers, Expect."""

from __future__ import annotations

import pytest

from tests.gateway.proxy.conftest import OK, Call, Running, Service, World, a_route


@pytest.mark.parametrize(("sent", "seen"), [("5", "4"), ("1", "0"), ("x", "x"), ("-1", "-1")])
async def test_max_forwards_counts_down_on_its_way(gateway: Running, service: Service, sent: str, seen: str) -> None:
    assert (await gateway.client.options("/orders", headers={"Max-Forwards": sent})).status_code == 200
    assert service.calls[-1].one("max-forwards") == seen


async def test_at_zero_the_gateway_answers_itself(world: World) -> None:
    service = await world.service()
    world.publish(a_route(methods=("GET", "OPTIONS")), a_route("put", path="/orders", methods=("PUT",)))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answer = await gateway.client.options("/orders", headers={"Max-Forwards": "0"})
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, PUT, OPTIONS")
    assert not service.calls


async def test_other_methods_leave_max_forwards_alone(gateway: Running, service: Service) -> None:
    assert (await gateway.get(headers={"Max-Forwards": "0"})).status_code == 200
    assert service.calls[-1].one("max-forwards") == "0"


async def test_options_of_the_server_as_a_whole_are_the_gateways_own(gateway: Running, service: Service) -> None:
    answer = await gateway.raw(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"allow: GET, HEAD, POST" in answer
    assert (await gateway.raw(b"GET * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert not service.calls


async def test_interim_answers_stay_here(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK)
    answer = await gateway.get()
    assert (answer.status_code, answer.text) == (200, "ok")
    assert "link" not in answer.headers


async def test_a_flood_of_interim_answers_is_malformed(gateway: Running, service: Service) -> None:
    service.answers(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 21 + OK, close=True)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_malformed")


async def test_a_client_that_waits_to_be_asked_is_asked_by_the_gateway(
    gateway: Running, world: World, service: Service
) -> None:
    head = (
        b"POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: %b\r\nContent-Length: 2\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    answer = await gateway.raw(head % world.key.encode(), answers=1, seconds=1.0)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    refused = await gateway.raw(head % b"anm_wrong")
    assert refused.startswith(b"HTTP/1.1 401 ")
    seen: list[Call] = service.calls
    assert not [call for call in seen if call.all("expect")]
