"""One line for a request, where its route wants one."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from gateway.proxy.policies import AccessLog
from tests.gateway.proxy.conftest import Running, Service, World, a_route


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.message) for record in caplog.records if record.name == "anumate.access"]


async def test_a_line_says_who_asked_for_what_and_what_came_of_it_and_holds_no_secret(
    gateway: Running, world: World, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish(a_route(access_log=AccessLog(sample=1.0)))
    await gateway.serves(world._revision)
    with caplog.at_level(logging.INFO, "anumate.access"):
        await gateway.get("/orders/7?token=hidden", headers={"X-Request-ID": "r-1", "Cookie": "hidden"})
    (line,) = lines(caplog)
    assert line["request_id"] == "r-1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/orders/7", 200)
    assert (line["route"], line["instance"], line["consumer"]) == ("orders", "orders/a", world.key_id)
    assert 0 < line["seconds"] < 10
    assert "hidden" not in json.dumps(line)
    assert world.key not in json.dumps(line)


async def test_failures_have_a_share_of_their_own(
    gateway: Running, world: World, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish(a_route(access_log=AccessLog(failures=1.0)))
    await gateway.serves(world._revision)
    with caplog.at_level(logging.INFO, "anumate.access"):
        await gateway.get()
        service.answers(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
        await gateway.get()
    assert [line["status"] for line in lines(caplog)] == [500]
