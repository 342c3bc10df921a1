"""What a thousand slow clients cost the others: p99 of 32 connections with them and without, in turn.

A quarter of them says nothing, the others stop in the request line, in a field, and in a body.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import urllib.request
from collections.abc import Iterator

from benchmarks import load
from benchmarks.gateway import answers, configure
from benchmarks.ours import PEPPER
from benchmarks.processes import memory
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port, rows, wait_until

COUNT = 1000
ROUNDS = 5
SECONDS = 3


@contextlib.contextmanager
def slow_clients(port: int, key: str, count: int) -> Iterator[list[socket.socket]]:
    said = (
        b"",
        b"GET /orders HT",
        b"GET /orders HTTP/1.1\r\nHost: h\r\nX-Slow: ",
        b"POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: %b\r\nContent-Length: 9\r\n\r\n" % key.encode(),
    )
    found: list[socket.socket] = []
    try:
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", port), 5)
            found.append(client)
            client.sendall(said[number % len(said)])
        yield found
    finally:
        for client in found:
            client.close()


def main() -> None:
    with Stand() as stand:
        ports, gateway = [free_port(), free_port()], free_port()
        key = configure(stand, ports, 1)
        stand.start(PYTHON, "-m", "benchmarks.upstream", *map(str, ports), core=OTHER, port=ports[1])
        process = stand.start(
            PYTHON, "-m", "benchmarks.worker", str(gateway), core=MEASURED, port=gateway, API_KEY_PEPPER=PEPPER
        )
        url, headers = f"http://127.0.0.1:{gateway}/orders/7", {"X-API-Key": key}
        wait_until(lambda: answers(url, key), "the gateway to answer")
        load.run(url, core=OTHER, seconds=1, headers=headers)
        without: list[load.Result] = []
        beside: list[load.Result] = []
        before, _ = memory(process.pid)
        most = before
        for _ in range(ROUNDS):
            without.append(load.run(url, core=OTHER, seconds=SECONDS, headers=headers))
            with slow_clients(gateway, key, COUNT):
                # Taking them in is over; this is about having them.
                wait_until(lambda: _connections(gateway) >= COUNT, "the gateway to have taken all")
                beside.append(load.run(url, core=OTHER, seconds=SECONDS, headers=headers))
                most = max(most, memory(process.pid)[0])
    lines = [("without them", *_middle(without)), (f"with {COUNT:,} of them", *_middle(beside))]
    rows(f"Slow clients: medians of {ROUNDS} rounds in turn", ("", "requests/s", "p50 ms", "p99 ms", "failed"), lines)
    print(f"  {most - before:.0f} MB for them, {(most - before) * 1024 / COUNT:.0f} KB each")


def _connections(port: int) -> int:
    """How many the gateway counts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/metrics") as answer:
        lines: list[str] = answer.read().decode().splitlines()
    count = next(line for line in lines if line.startswith("anumate_gateway_worker_connections{"))
    return int(float(count.split()[-1]))


def _middle(results: list[load.Result]) -> tuple[float, ...]:
    return tuple(round(statistics.median(column), 3) for column in zip(*(each.cells for each in results), strict=True))
