"""A wiped store fills itself again from heartbeats, and forgets nothing that an operator said."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
import redis
from django.conf import settings
from django.db import connections

from anumate_integration_service import DiscoveryClient, create_discovery_client
from registry.live.instances import Key
from registry.live.store import SyncStore
from registry.models import Instance
from registry.services import projection
from registry.services.changes import SYSTEM
from registry.services.operator import set_state
from registry.services.projection import project
from registry.services.sections import publish_sections
from tests.api import secret
from tests.conftest import eventually
from tests.registry.serving import Served, serving

pytestmark = pytest.mark.django_db(transaction=True)

CLIENTS = 20
BEAT = 5 / 3 * 1.1
"""The longest pause between two heartbeats of a lease of five seconds: a third of it, and a tenth more."""
DRAINED = Key("default", "orders", "o-0")


def client_of(lane: Served, number: int) -> DiscoveryClient:
    return create_discovery_client(
        registry_url=f"http://127.0.0.1:{lane.port}",
        api_key=lane.keys["write"],
        service_name="orders",
        instance_id=f"o-{number}",
        http_port=8000 + number,
        host="127.0.0.1",
        lease_ttl=5,
    )


async def found(lane: Served) -> set[str]:
    answer = await lane.http.get("/v1/services", params={"service_name": "orders"}, headers=lane.key())
    return {item["instance_id"] for item in answer.json()["services"]}


def state(lane: Served) -> str:
    known = lane.node.catalog.get(DRAINED)
    return known.state(time.time()) if known else "away"


async def test_everyone_is_back_within_a_heartbeat_and_who_was_drained_is_drained_still(
    store: redis.Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projection, "_last_full", float("-inf"))
    live, keys, pepper = SyncStore(store), {"write": secret()}, settings.API_KEY_PEPPER
    everyone = {f"o-{number}" for number in range(CLIENTS)}
    publish_sections(store)
    async with serving(redis_url, keys, pepper=pepper) as lane, AsyncExitStack() as running:
        running.callback(connections.close_all)  # this loop's own; the fixtures know only the thread's
        for number in range(CLIENTS):
            await running.enter_async_context(client_of(lane, number))
        project(store)
        row = Instance.objects.get(instance_id="o-0")
        set_state(SYSTEM, row, "draining", reason="a new disk")
        await eventually(lambda: state(lane) == "draining")
        before = lane.node.catalog.position.epoch

        store.flushall()
        project(store)
        assert Instance.objects.filter(live=True).count() == CLIENTS
        await eventually(
            lambda: {key.id for key in live.members().instances} == everyone, seconds=BEAT + 0.5, what="everyone"
        )
        await eventually(lambda: lane.node.catalog.position.epoch != before, what="the catalogue of the new store")
        await eventually(lambda: len(lane.node.catalog.instances("default", "orders")) == CLIENTS)
        assert state(lane) == "draining"
        assert await found(lane) == everyone - {"o-0"}

        publish_sections(store)  # as beat does every few seconds
        project(store)
        row.refresh_from_db()
        assert (row.state, row.state_reason, row.live) == ("draining", "a new disk", True)
        assert Instance.objects.filter(live=True).count() == CLIENTS
        assert live.read([DRAINED])[DRAINED].facts["state"].value == "draining"
        async with serving(redis_url, keys, pepper=pepper) as late:
            assert state(late) == "draining"
            assert await found(late) == everyone - {"o-0"}
