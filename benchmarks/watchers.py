"""A thousand long polls on one web worker: what they weigh, and how soon a change reaches them.

All watch one service of ten instances; each change is an eleventh of another version. `python -m benchmarks watch`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

import uvloop

from benchmarks.processes import memory
from benchmarks.registry import body_of, configure, web_worker
from benchmarks.stand import OTHER, Stand, rows

WATCHERS = 1_000
INSTANCES = 10
ROUNDS = 5
MOST_MB = 100
MOST_MS = 100


def main() -> None:
    with Stand() as stand:
        key = configure(stand)
        web, port = web_worker(stand)
        os.sched_setaffinity(0, {OTHER})
        grown, times = uvloop.run(_measure(port, key, web.pid))
    rounds = sorted((_at(each, 0.5), _at(each, 0.99), _at(each, 1)) for each in times)
    p50, p99, _ = rounds[len(rounds) // 2]
    rows(
        f"Watchers: {WATCHERS} long polls on one web worker, {ROUNDS} changes",
        ("", "measured", "limit"),
        [
            ("memory growth, MB", f"{grown:.0f}", MOST_MB),
            ("wake-up p50, ms (median round)", f"{p50:.0f}", ""),
            ("wake-up p99, ms (median round)", f"{p99:.0f}", MOST_MS),
            ("last of all, worst round, ms", f"{max(each[2] for each in rounds):.0f}", ""),
        ],
    )


async def _measure(port: int, key: str, pid: int) -> tuple[float, list[list[float]]]:
    loop = asyncio.get_running_loop()

    async def connect() -> _Connection:
        return (await loop.create_connection(lambda: _Connection(key), "127.0.0.1", port))[1]

    caller, index = await connect(), ""
    for number in range(INSTANCES):
        index = await caller.register(f"i{number}", "1.0.0")
    before, _ = memory(pid)
    watchers = [await connect() for _ in range(WATCHERS)]
    grown, times = 0.0, list[list[float]]()
    for number in range(ROUNDS):
        polls = [each.send("GET", f"/v1/services?service_name=watched&index={index}&wait=60s") for each in watchers]
        await asyncio.sleep(1.5)  # until all of them wait; nothing tells from outside
        grown = max(grown, memory(pid)[0] - before)
        changed = time.perf_counter()  # so the registration itself is counted in
        index = await caller.register("new", f"1.0.{number + 1}")
        await asyncio.gather(*polls)
        times.append([each.heard_at - changed for each in watchers])
    return grown, times


def _at(times: list[float], part: float) -> float:
    """A percentile, in milliseconds."""
    return sorted(times)[min(int(len(times) * part), len(times) - 1)] * 1000


class _Connection(asyncio.Protocol):
    """Knows just enough HTTP for answers with a Content-Length; notes when each was whole, and decodes what is asked.

    A client that costs as much as the server would measure itself.
    """

    heard_at = 0.0

    def __init__(self, key: str) -> None:
        self._key, self._data = key, b""
        self._answer: asyncio.Future[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def send(self, method: str, path: str, body: str = "") -> asyncio.Future[bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {self._key}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._data, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(f"{head}\r\n{body}".encode())
        return self._answer

    async def register(self, instance: str, version: str) -> str:
        """Answers the index."""
        body = body_of("watched", instance).replace("1.0.0", version)
        index: str = json.loads(await self.send("POST", "/v1/services/register", body))["index"]
        return index

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        self.heard_at = time.perf_counter()
        if head.startswith(b"HTTP/1.1 2"):
            self._answer.set_result(body)
        else:
            self._answer.set_exception(SystemExit(f"refused: {body.decode()}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(SystemExit("the web worker hung up"))


if __name__ == "__main__":
    main()
