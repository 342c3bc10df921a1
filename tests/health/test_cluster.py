"""What the worker that checks stands on, on a cluster of three servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from anumate.lib.redis import connect, connect_async
from health.following import catch_up
from health.schedule import History, Member, Schedule, histories
from health.verdict import Streak
from registry.live.catalog import Catalog
from registry.live.instances import Document, Key
from registry.live.store import SyncStore
from tests.registry.live.nodes import cluster

KEY = Key("default", "orders", "a")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with cluster(tmp_path) as ports:
        yield f"redis+cluster://127.0.0.1:{ports[0]}"


async def test_it_follows_the_registry_and_keeps_a_schedule(url: str) -> None:
    client, catalog = connect_async(url), Catalog()
    try:
        with connect(url) as sync:
            SyncStore(sync).register(KEY, Document())
            await catch_up(client, catalog)
            assert catalog.get(KEY) is not None
            SyncStore(sync).deregister(KEY)
            await catch_up(client, catalog)
            assert catalog.get(KEY) is None
        schedule = Schedule(client)
        member, now = Member(KEY, 0), await schedule.now()
        await schedule.add({member: now - 1})
        assert [claim.member for claim in await schedule.claim(10)] == [member]
        assert await schedule.hold({member: now + 60}) == [Streak()]
        assert await schedule.claim(10) == []
        with connect(url) as sync:
            assert histories(sync, [member]) == {member: History(Streak(), [])}
        await schedule.remove([member])
        assert await schedule.members() == set()
    finally:
        await client.aclose()
