"""Load on one address: `wrk` for plain GETs where it is installed, else a generator of our own on asyncio.

`python -m benchmarks.load` reads a plan as JSON from standard input and prints the result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.stand import PYTHON, pinned

Request = tuple[str, str, str]
"""Method, path and body."""


class Result(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def run(
    url: str, *, core: int, seconds: int = 5, connections: int = 32, headers: Mapping[str, str] | None = None
) -> Result:
    """GET one address again and again."""
    if not shutil.which("wrk"):
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        requests = [("GET", parts.path or "/", "")]
        return send(base, requests, core=core, seconds=seconds, connections=connections, headers=headers)
    flags = [flag for name, value in (headers or {}).items() for flag in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *flags, url]
    return _read_wrk(subprocess.run(pinned(core, command), check=True, capture_output=True, text=True).stdout)


def send(
    base: str,
    requests: Sequence[Request],
    *,
    core: int,
    seconds: int = 5,
    connections: int = 32,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """Send these requests in turn, again and again."""
    plan = {
        "base": base,
        "requests": requests,
        "seconds": seconds,
        "connections": connections,
        "headers": headers or {},
    }
    command = pinned(core, [PYTHON, "-m", "benchmarks.load"])
    done = subprocess.run(command, input=json.dumps(plan), check=True, capture_output=True, text=True)
    return Result(**json.loads(done.stdout))


def _read_wrk(text: str) -> Result:
    def milliseconds(percentile: str) -> float:
        number, unit = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
        return round(float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit], 3)

    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = (int(refused[1]) if refused else 0) + (sum(map(int, errors.groups())) if errors else 0)
    return Result(per_second, milliseconds("50"), milliseconds("99"), failed)


class _Client(asyncio.Protocol):
    """Asks again as soon as it is answered. Knows just enough HTTP for answers with a Content-Length."""

    def __init__(self, requests: Iterator[bytes], times: list[float], until: float) -> None:
        self.requests, self.times, self.until = requests, times, until
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, separator, body = self.data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not separator or (length and len(body) < int(length[1])):
            return
        now = time.perf_counter()
        self.times.append(now - self.asked)
        self.failed += not head.startswith(b"HTTP/1.1 2")
        self.data = b""
        if now < self.until:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _measure(plan: Mapping[str, Any]) -> Result:
    parts = urlsplit(plan["base"])
    fields = "".join(f"{name}: {value}\r\n" for name, value in plan["headers"].items())
    encoded = [
        _encode(method, path, body, f"Host: {parts.netloc}\r\n{fields}") for method, path, body in plan["requests"]
    ]
    requests, times, clients = cycle(encoded), list[float](), list[_Client]()
    started, seconds = time.perf_counter(), plan["seconds"]
    loop = asyncio.get_running_loop()
    for _ in range(plan["connections"]):
        _, client = await loop.create_connection(
            lambda: _Client(requests, times, started + seconds), parts.hostname, parts.port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    elapsed = time.perf_counter() - started
    times.sort()
    p50, p99 = (round(times[int(len(times) * part)] * 1000, 3) for part in (0.5, 0.99))
    return Result(round(len(times) / elapsed, 1), p50, p99, sum(client.failed for client in clients))


def _encode(method: str, path: str, body: str, fields: str) -> bytes:
    if body:
        fields += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n{body}".encode()


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_measure(json.load(sys.stdin)))._asdict()))
