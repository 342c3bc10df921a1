"""One gateway worker on one core against the service it stands before.

On are: key check, token bucket, breaker, balancing over two instances, forwarded fields, trace ids, counters.
`python -m benchmarks.gateway [routes]` measures with that many routes in the table.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

from benchmarks import load, ours
from benchmarks.ours import PEPPER
from benchmarks.processes import cpu_seconds, memory
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port, rows, wait_until

SECONDS = 5


def configure(stand: Stand, ports: list[int], routes: int) -> str:
    """Publish keys and routes, register the instances; answers a key."""
    key = ours.publish_keys(stand)[0]
    ours.publish_routes(stand, [ours.route(1, "orders", "orders"), *ours.others(routes - 1)])
    ours.register(stand, {"orders": ports})
    return key


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
    lines = [("the service itself, 32 connections", *raw.cells), ("gateway, 1 connection", *one.cells)]
    lines.append(("gateway, 32 connections", *many.cells))
    rows(f"Gateway: one worker on one core, {routes} routes", ("", "requests/s", "p50 ms", "p99 ms", "failed"), lines)
    # What it would do with its core to itself, also on a machine that is busy with other things.
    print(f"  {many.per_second * SECONDS / used:,.0f} requests for each second of processor time")
    rows("Memory after the run", ("", "RSS MB", "PSS MB"), [("gateway worker", f"{rss:.0f}", f"{pss:.0f}")])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
