"""What becomes of a table that is wrong in part or whole."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.proxy.live import Compiled
from gateway.proxy.subscriber import Subscriber
from gateway.proxy.table import Route, RoutingTable, Target, encode


def test_a_tenants_bad_route_leaves_anothers_of_the_same_name_alone() -> None:
    bad = Route(1, "api", "acme", (Target("orders", version="nonsense"),))
    good = Route(2, "api", "default", (Target("orders"),))
    compiled = Compiled(encode(RoutingTable(1, (bad, good))))
    assert [route.id for route in compiled.table.routes] == [2]
    assert [name for name, _ in compiled.skipped] == ["api"]


async def test_whatever_compiling_raises_the_old_table_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("gateway.proxy.subscriber.Compiled", fails)
    subscriber = Subscriber(None)  # type: ignore[arg-type]
    subscriber.take(b"{}")
    await subscriber.settled()
