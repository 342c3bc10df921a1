"""Our gateway as `start` runs it: gunicorn with its workers, and the tables they are given."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from anumate.stack import programs
from benchmarks.stand import MEASURED, Stand
from gateway.proxy import table
from registry.live import keys
from registry.live.instances import Document, Endpoint, Key
from registry.live.sections import publish
from registry.live.store import SyncStore

PEPPER: Final = "a pepper for benchmarks"
PLENTY: Final = table.RateLimit("default", "plenty", 1_000_000.0, 1_000_000, "key")
FEW: Final = table.RateLimit("default", "few", 1.0, 2, "key")


def publish_keys(stand: Stand, count: int = 1) -> list[str]:
    made = [keys.make() for _ in range(count)]
    records = tuple(
        keys.KeyRecord(public_id, f"bench-{number}", "default", keys.secret_hash(PEPPER, key), ("gateway:invoke",))
        for number, (public_id, key) in enumerate(made)
    )
    publish_body(stand, "keys", msgspec.json.encode(keys.KeySection(records)))
    publish_body(stand, "tenants", msgspec.json.encode(keys.TenantSection((keys.TenantRecord("default"),))))
    return [key for _, key in made]


def publish_routes(
    stand: Stand,
    routes: Sequence[table.Route],
    *,
    upstreams: Sequence[table.Upstream] = (),
    limits: Sequence[table.RateLimit] = (PLENTY, FEW),
) -> None:
    publish_body(stand, "routes", table_of(routes, upstreams=upstreams, limits=limits))


def table_of(
    routes: Sequence[table.Route],
    *,
    upstreams: Sequence[table.Upstream] = (),
    limits: Sequence[table.RateLimit] = (PLENTY, FEW),
    revision: int = 1,
) -> bytes:
    return table.encode(table.RoutingTable(revision, tuple(routes), tuple(upstreams), tuple(limits)))


def route(number: int, name: str, service: str, limit: str = "plenty", path: str = "") -> table.Route:
    targets = (table.Target(service),)
    return table.Route(number, name, "default", targets, path=path or f"/{name}", rate_limits=(limit,))


def others(count: int) -> list[table.Route]:
    """So many routes that no request means."""
    return [route(n, f"r{n}", "orders", path=f"/area{n % 97}/r{n}") for n in range(100, 100 + count)]


def register(stand: Stand, instances: Mapping[str, Sequence[int]]) -> None:
    store = SyncStore(stand.redis)
    for service, ports in instances.items():
        for port in ports:
            endpoints = {"http": Endpoint("http", "127.0.0.1", port)}
            store.register(Key("default", service, f"i{port}"), Document(endpoints=endpoints, lease_ttl=86_400))


def start(stand: Stand, port: int, workers: int = 1) -> subprocess.Popen[bytes]:
    command = programs.gateway({}, "127.0.0.1", port, workers, "warning").argv
    return stand.start(*command, core=MEASURED, port=port, API_KEY_PEPPER=PEPPER)


def publish_body(stand: Stand, name: str, body: bytes, *, revision: int = 1) -> None:
    publish(stand.redis, name, origin="bench", revision=revision, body=body)
