"""Header fields that routes set, add and remove, on the way in and on the way out."""

from __future__ import annotations

from gateway.proxy.policies import HeaderEdits, Pair
from tests.gateway.proxy.conftest import Running, Service, World, a_route


async def test_fields_of_requests_are_removed_set_and_added(gateway: Running, world: World, service: Service) -> None:
    edits = HeaderEdits(
        set=(Pair("X-Team", "payments"),), add=(Pair("X-Hop", "gateway"),), remove=("Cookie", "Authorization")
    )
    world.publish(a_route(request_headers=edits))
    await gateway.serves(world._revision)
    sent = {"X-Team": "mine", "X-Hop": "edge", "Cookie": "a=b", "Authorization": "Basic eDp5", "X-Kept": "yes"}
    await gateway.get(headers=sent)
    call = service.calls[-1]
    assert call.all("x-team") == ["payments"]
    assert call.all("x-hop") == ["edge", "gateway"]
    assert (call.all("cookie"), call.all("authorization"), call.one("x-kept")) == ([], [], "yes")


async def test_a_route_may_give_the_service_credentials_of_its_own(
    gateway: Running, world: World, service: Service
) -> None:
    world.publish(a_route(request_headers=HeaderEdits(set=(Pair("Authorization", "Basic c2VydmljZTo3"),))))
    await gateway.serves(world._revision)
    await gateway.get(headers={"Authorization": "Basic eDp5"})
    assert service.calls[-1].all("authorization") == ["Basic c2VydmljZTo3"]


async def test_fields_of_answers_are_removed_set_and_added_and_ours_stay(
    gateway: Running, world: World, service: Service
) -> None:
    edits = HeaderEdits(
        set=(Pair("Cache-Control", "no-store"), Pair("X-Request-ID", "forged")),
        add=(Pair("X-Served-By", "us"),),
        remove=("Server",),
    )
    world.publish(a_route(response_headers=edits))
    await gateway.serves(world._revision)
    service.answers(
        b"HTTP/1.1 200 OK\r\nserver: x\r\ncache-control: public\r\nx-served-by: a\r\ncontent-length: 0\r\n\r\n"
    )
    answer = await gateway.get(headers={"X-Request-ID": "r-1"})
    assert "server" not in answer.headers
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers.get_list("x-served-by") == ["a", "us"]
    assert answer.headers.get_list("x-request-id") == ["r-1"]
