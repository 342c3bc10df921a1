"""What health's tests share: a live state with real instances in it, and a worker that takes its turns on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from health.schedule import DUE
from health.services import Worker
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import SyncStore
from registry.models import Service, Tenant
from tests.health.servers import Switchable, switchable_server

Register = Callable[..., Key]


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    return SyncStore(store)


@pytest.fixture
def register(live: SyncStore) -> Register:
    """Registers an instance of `shop/orders` that listens on `port`."""

    def register(port: int, name: str = "one", *, check: str = "", protocol: str = "http", **rest: Any) -> Key:
        key = Key(rest.pop("tenant", "shop"), rest.pop("service", "orders"), name)
        endpoint = Endpoint(protocol, rest.pop("host", "127.0.0.1"), port)  # type: ignore[arg-type]
        live.register(key, Document(endpoints={"http": endpoint}, **rest), check=Fact(check) if check else None)
        return key

    return register


@pytest.fixture
def probed(live: SyncStore) -> Callable[[Key], Fact | None]:
    """What the live state says that checks found."""
    return lambda key: live.read([key])[key].facts.get("probe")


@pytest.fixture
def worker(redis_url: str, store: redis.Redis, transactional_db: None) -> Worker:
    return Worker(redis_url)


@pytest.fixture
def turn(worker: Worker, store: redis.Redis) -> Callable[..., None]:
    """Takes turns in which every check is due."""

    def turn(times: int = 1) -> None:
        if not store.exists(DUE):
            worker.turn()  # puts what is new on the list
        for _ in range(times):
            everything = store.zrange(DUE, 0, -1)
            if everything:
                store.zadd(DUE, dict.fromkeys(everything, 1))
            worker.turn()

    return turn


@pytest.fixture
def shop(transactional_db: None) -> Tenant:
    return Tenant.objects.create(name="shop")


@pytest.fixture
def orders(shop: Tenant) -> Service:
    return Service.objects.create(tenant=shop, name="orders")


@pytest.fixture
def server() -> Iterator[Switchable]:
    with switchable_server() as switch:
        yield switch
