"""A request on its way to a service and back."""

from __future__ import annotations

from tests.gateway.proxy.conftest import Running, Service


async def test_it_forwards_a_request_and_its_answer(gateway: Running, service: Service) -> None:
    answer = await gateway.get("/orders/7?a=1&b=%20")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert service.calls[0].line == "GET /7?a=1&b=%20 HTTP/1.1"
