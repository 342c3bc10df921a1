"""Load on one address: `wrk` where it is installed, else a generator of our own on asyncio; and WebSocket messages.

`python -m benchmarks.load` reads a plan as JSON from standard input and prints the result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from benchmarks.stand import PYTHON, pinned
from benchmarks.stats import percentile

MESSAGE: Final = b"x" * 64
FRAME: Final = b"\x82" + bytes((0x80 | len(MESSAGE),)) + bytes(4) + MESSAGE
"""Masked with nothing: a mask of zeros is one as any other, and costs the load no time."""
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SCRIPT: Final = """\
local requests, turn = {{}}, 0
function init()
  local file = assert(io.open("{path}", "rb"))
  for number, length in ipairs({{{lengths}}}) do requests[number] = file:read(length) end
  file:close()
  turn = #requests - 1 -- wrk asks once before it begins, and throws that one away
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
"""


class Request(NamedTuple):
    """`length` is that of a body made of nothing in particular, where none is given."""

    method: str = "GET"
    path: str = "/"
    body: str = ""
    headers: Mapping[str, str] = {}
    length: int = 0


class Result(NamedTuple):
    """`failed` of the `total` were answered with 400 or more, or not at all."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    total: int = 0
    elapsed: float = 0.0

    @property
    def cells(self) -> tuple[float, ...]:
        return self[:4]


def run(
    url: str, *, core: int, seconds: float = 5, connections: int = 32, headers: Mapping[str, str] | None = None
) -> Result:
    """GET one address again and again."""
    parts = urlsplit(url)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path or "/"
    return send(base, [Request("GET", path)], core=core, seconds=seconds, connections=connections, headers=headers)


def send(
    base: str,
    requests: Sequence[Request],
    *,
    core: int,
    seconds: float = 5,
    connections: int = 32,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """Send these requests in turn, again and again."""
    if shutil.which("wrk"):
        return _wrk(base, requests, core, seconds, connections, headers or {})
    plan = {"base": base, "requests": requests, "seconds": seconds, "connections": connections, "headers": headers}
    command = pinned(core, [PYTHON, "-m", "benchmarks.load"])
    done = subprocess.run(command, input=json.dumps(plan), check=True, capture_output=True, text=True)
    return Result(**json.loads(done.stdout))


def _wrk(
    base: str,
    requests: Sequence[Request],
    core: int,
    seconds: float,
    connections: int,
    headers: Mapping[str, str],
) -> Result:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "--timeout", "10s"]
    first = requests[0]
    with tempfile.TemporaryDirectory(prefix="anumate-load-") as home:
        if len(requests) == 1 and first.method == "GET" and not first.body:  # what wrk does by itself costs it less
            fields = {**headers, **first.headers}
            command += [flag for name, value in fields.items() for flag in ("-H", f"{name}: {value}")]
            command.append(base + first.path)
        else:
            encoded = [encode(request, urlsplit(base).netloc, headers) for request in requests]
            written, script = Path(home, "requests"), Path(home, "requests.lua")
            written.write_bytes(b"".join(encoded))
            script.write_text(_SCRIPT.format(path=written, lengths=", ".join(str(len(each)) for each in encoded)))
            command += ["-s", str(script), base]
        done = subprocess.run(pinned(core, command), check=True, capture_output=True, text=True)
    return read_wrk(done.stdout)


def read_wrk(text: str) -> Result:
    """What `wrk --latency` prints."""

    def milliseconds(part: str) -> float:
        number, unit = re.search(rf"{part}%\s+([\d.]+)(us|ms|s|m)\b", text).groups()  # type: ignore[union-attr]
        return round(float(number) * UNITS[unit], 3)

    total, elapsed, unit = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", text).groups()  # type: ignore[union-attr]
    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = (int(refused[1]) if refused else 0) + (sum(map(int, errors.groups())) if errors else 0)
    seconds = float(elapsed) * UNITS[unit] / 1000
    return Result(per_second, milliseconds("50"), milliseconds("99"), failed, int(total), seconds)


def encode(request: Request, host: str, headers: Mapping[str, str]) -> bytes:
    fields = {"Host": host, **headers, **request.headers}
    body = request.body.encode() or b"x" * request.length
    if body:
        fields |= {"Content-Type": "application/json" if request.body else "application/octet-stream"}
    if body or request.method in ("POST", "PUT"):
        fields |= {"Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{request.method} {request.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def exchange_messages(
    base: str, path: str, *, core: int, seconds: float = 5, connections: int = 32, headers: Mapping[str, str]
) -> Result:
    """Send a short message on each WebSocket connection as soon as the one before came back."""
    request = Request("GET", path, headers={**UPGRADE, **headers})
    plan = {"base": base, "requests": [request], "seconds": seconds, "connections": connections, "messages": True}
    done = subprocess.run(
        pinned(core, [PYTHON, "-m", "benchmarks.load"]),
        input=json.dumps({**plan, "headers": None}),
        check=True,
        capture_output=True,
        text=True,
    )
    return Result(**json.loads(done.stdout))


class _Client(asyncio.Protocol):
    """Asks again as soon as it is answered. Knows just enough HTTP for answers with a Content-Length."""

    def __init__(self, requests: Iterator[bytes], times: list[float], until: float) -> None:
        self.requests, self.times, self.until = requests, times, until
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self.head, self.missing = bytearray(), -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self.head, 0, end)
            self.missing = (int(length[1]) if length else 0) - (len(self.head) - end - 4)
        else:
            self.missing -= len(data)
        if self.missing <= 0:
            self._answered()

    def _answered(self) -> None:
        now = time.perf_counter()
        self.times.append(now - self.asked)
        self.failed += not self.head.startswith(b"HTTP/1.1 2")
        closes = b"\r\nconnection: close" in bytes(self.head).lower()
        self.head, self.missing = bytearray(), -1
        if closes or now >= self.until:
            self.transport.close()
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Speaker(_Client):
    """Asks once to switch, and then sends a message whenever the one before has come back."""

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            self.head += data
            if self.head.find(b"\r\n\r\n") < 0:
                return
            if not self.head.startswith(b"HTTP/1.1 101"):
                self.failed += 1
                self.transport.close()
                return
            self._speak()
            return
        self.missing -= len(data)
        if self.missing <= 0:
            now = time.perf_counter()
            self.times.append(now - self.asked)
            if now < self.until:
                self._speak()
            else:
                self.transport.close()

    def _speak(self) -> None:
        self.asked, self.missing = time.perf_counter(), len(MESSAGE) + 2
        self.transport.write(FRAME)


async def _measure(plan: Mapping[str, Any]) -> Result:
    parts = urlsplit(plan["base"])
    encoded = [encode(Request(*each), parts.netloc, plan["headers"] or {}) for each in plan["requests"]]
    requests, times = cycle(encoded), list[float]()
    started, seconds = time.perf_counter(), plan["seconds"]
    loop = asyncio.get_running_loop()
    client_class = _Speaker if plan.get("messages") else _Client

    async def keep_asking() -> int:
        failed = 0
        while True:
            _, client = await loop.create_connection(
                lambda: client_class(requests, times, started + seconds), parts.hostname, parts.port
            )
            await client.done
            failed += client.failed
            if client_class is _Speaker or time.perf_counter() >= started + seconds:
                return failed

    failed = sum(await asyncio.gather(*(keep_asking() for _ in range(plan["connections"]))))
    elapsed = time.perf_counter() - started
    if not times:
        raise SystemExit(f"{plan['base']} answered nothing")
    p50, p99 = (round(percentile(times, part) * 1000, 3) for part in (0.5, 0.99))
    return Result(round(len(times) / elapsed, 1), p50, p99, failed, len(times), elapsed)


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_measure(json.load(sys.stdin)))._asdict()))
