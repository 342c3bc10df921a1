"""One gateway worker on one core against the service it stands before.

On are: key check, token bucket, breaker, balancing over two instances, forwarded fields, trace ids, counters.
`python -m benchmarks.gateway [routes]` measures with that many routes in the table.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

import msgspec

from benchmarks import load
from benchmarks.processes import cpu_seconds, memory
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port, rows, wait_until
from gateway.proxy import table
from registry.live import keys
from registry.live.instances import Document, Endpoint, Key
from registry.live.sections import publish
from registry.live.store import SyncStore

PEPPER = "a pepper for benchmarks"
SECONDS = 5


def configure(stand: Stand, ports: list[int], routes: int) -> str:
    """Publish keys and routes, register the instances; answers a key."""
    public_id, key = keys.make()
    record = keys.KeyRecord(public_id, "bench", "default", keys.secret_hash(PEPPER, key), ("gateway:invoke",))
    _publish(stand, "keys", msgspec.json.encode(keys.KeySection((record,))))
    _publish(stand, "tenants", msgspec.json.encode(keys.TenantSection((keys.TenantRecord("default"),))))
    limit = table.RateLimit("default", "plenty", 1_000_000.0, 1_000_000, "key")
    orders = (table.Target("orders"),)
    found = [table.Route(1, "orders", "default", orders, path="/orders", rate_limits=("plenty",))]
    found += [table.Route(n, f"r{n}", "default", orders, path=f"/area{n % 97}/r{n}") for n in range(2, routes + 1)]
    _publish(stand, "routes", table.encode(table.RoutingTable(1, tuple(found), (), (limit,))))
    store = SyncStore(stand.redis)
    for port in ports:
        endpoints = {"http": Endpoint("http", "127.0.0.1", port)}
        store.register(Key("default", "orders", f"i{port}"), Document(endpoints=endpoints, lease_ttl=3600))
    return key


def _publish(stand: Stand, name: str, body: bytes) -> None:
    publish(stand.redis, name, origin="bench", revision=1, body=body)


def answers(url: str, key: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"X-API-Key": key})) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def main(routes: int = 100) -> None:
    with Stand() as stand:
        ports, gateway = [free_port(), free_port()], free_port()
        key = configure(stand, ports, routes)
        stand.start(PYTHON, "-m", "benchmarks.upstream", *map(str, ports), core=OTHER, port=ports[1])
        process = stand.start(
            PYTHON, "-m", "benchmarks.worker", str(gateway), core=MEASURED, port=gateway, API_KEY_PEPPER=PEPPER
        )
        url, headers = f"http://127.0.0.1:{gateway}/orders/7", {"X-API-Key": key}
        wait_until(lambda: answers(url, key), "the gateway to answer")
        load.run(url, core=OTHER, seconds=1, headers=headers)
        raw = load.run(f"http://127.0.0.1:{ports[0]}/7", core=OTHER, seconds=2)
        one = load.run(url, core=OTHER, seconds=2, connections=1, headers=headers)
        before = cpu_seconds(process.pid)
        many = load.run(url, core=OTHER, seconds=SECONDS, headers=headers)
        used = cpu_seconds(process.pid) - before
        rss, pss = memory(process.pid)
    lines = [("the service itself, 32 connections", *raw), ("gateway, 1 connection", *one)]
    lines.append(("gateway, 32 connections", *many))
    rows(f"Gateway: one worker on one core, {routes} routes", ("", "requests/s", "p50 ms", "p99 ms", "failed"), lines)
    # What it would do with its core to itself, also on a machine that is busy with other things.
    print(f"  {many.per_second * SECONDS / used:,.0f} requests for each second of processor time")
    rows("Memory after the run", ("", "RSS MB", "PSS MB"), [("gateway worker", f"{rss:.0f}", f"{pss:.0f}")])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
