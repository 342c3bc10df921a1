"""Load on one address: `wrk` where it is installed, else a generator of our own on asyncio.

`python -m benchmarks.load <url> <seconds> <connections> [name: value …]` runs our own and prints a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.stand import PYTHON, pinned


class Result(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def run(
    url: str, *, core: int, seconds: int = 5, connections: int = 32, headers: dict[str, str] | None = None
) -> Result:
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    if shutil.which("wrk"):
        flags = [flag for line in lines for flag in ("-H", line)]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *flags, url]
        return _read_wrk(_output(pinned(core, command)))
    command = [PYTHON, "-m", "benchmarks.load", url, str(seconds), str(connections), *lines]
    return Result(**json.loads(_output(pinned(core, command))))


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


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

    def __init__(self, request: bytes, times: list[float], until: float) -> None:
        self.request, self.times, self.until = request, times, until
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(self.request)

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


async def _measure(url: str, seconds: int, connections: int, lines: list[str]) -> Result:
    parts = urlsplit(url)
    head = [f"GET {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", *lines]
    request = ("\r\n".join(head) + "\r\n\r\n").encode()
    times: list[float] = []
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Client(request, times, started + seconds), parts.hostname, parts.port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    elapsed = time.perf_counter() - started
    times.sort()
    p50, p99 = (round(times[int(len(times) * part)] * 1000, 3) for part in (0.5, 0.99))
    return Result(round(len(times) / elapsed, 1), p50, p99, sum(client.failed for client in clients))


if __name__ == "__main__":
    import uvloop

    url, seconds, connections, *lines = sys.argv[1:]
    print(json.dumps(uvloop.run(_measure(url, int(seconds), int(connections), lines))._asdict()))
