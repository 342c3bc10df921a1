"""What is asked of every proxy alike: a load on one of its routes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from benchmarks import load
from benchmarks.load import Request, Result
from benchmarks.processes import cpu_seconds, memory
from benchmarks.stand import OTHER


@dataclass(frozen=True)
class Contestant:
    """A proxy that runs. `instead` are its own paths for some of a workload's."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    key: str
    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Sample(NamedTuple):
    """One contestant in one round. `cpu_us` is the processor time of all its processes for a request, `busy` what they
    had of the core in per cent: near 100 says that the proxy was the limit, less that the load or the service was."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float
    busy: float
    rss_mb: float
    pss_mb: float


@dataclass(frozen=True)
class Workload:
    """`variants` are other paths that ours can go, measured beside it: a name for each, and the path."""

    about: str
    requests: Sequence[Request]
    connections: int = 32
    headers: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)

    def measure(self, contestant: Contestant, seconds: float) -> Sample:
        before = cpu_seconds(contestant.process.pid)
        result = self.send(contestant, seconds)
        used = cpu_seconds(contestant.process.pid) - before
        rss, pss = memory(contestant.process.pid)
        cpu_us, busy = used / max(1, result.total) * 1e6, used / result.elapsed * 100
        return Sample(result.per_second, result.p50_ms, result.p99_ms, result.failed, cpu_us, busy, rss, pss)

    def send(self, contestant: Contestant, seconds: float) -> Result:
        requests = [replace_path(each, contestant.instead) for each in self.requests]
        headers = {"X-API-Key": contestant.key, **self.headers}
        return load.send(
            contestant.base, requests, core=OTHER, seconds=seconds, connections=self.connections, headers=headers
        )

    def varied(self, contestant: Contestant) -> list[Contestant]:
        path = self.requests[0].path
        return [
            replace(contestant, name=f"{contestant.name}, {name}", instead={path: instead})
            for name, instead in self.variants.items()
        ]


class Messages(Workload):
    """WebSocket messages in place of requests."""

    def send(self, contestant: Contestant, seconds: float) -> Result:
        headers = {"X-API-Key": contestant.key}
        path, connections = self.requests[0].path, self.connections
        return load.exchange_messages(
            contestant.base, path, core=OTHER, seconds=seconds, connections=connections, headers=headers
        )


def replace_path(request: Request, instead: Mapping[str, str]) -> Request:
    return request._replace(path=instead.get(request.path, request.path))


SMALL: Final = (Request("GET", "/orders/7"),)
BODY: Final = '{"item": "a thing worth ordering", "count": 3}'
MIXED: Final = (
    *(Request("GET", "/orders/7") for _ in range(5)),
    *(Request("POST", "/orders/upload", BODY) for _ in range(2)),
    *(Request("PUT", "/orders/upload", BODY) for _ in range(2)),
    Request("DELETE", "/orders/7"),
)

WORKLOADS: Final[dict[str, Workload]] = {
    "small-1": Workload("67 bytes of JSON, 1 connection", SMALL, 1),
    "small-32": Workload("67 bytes of JSON, 32 connections", SMALL, 32),
    "small-256": Workload("67 bytes of JSON, 256 connections", SMALL, 256),
    "answers-64k": Workload("answers of 64 KB, 32 connections", (Request("GET", "/orders/64k"),)),
    "answers-10m": Workload("answers of 10 MB, 4 connections", (Request("GET", "/orders/10m"),), 4),
    "uploads-64k": Workload("requests of 64 KB, 32 connections", (Request("POST", "/orders/upload", length=64 << 10),)),
    "uploads-10m": Workload(
        "requests of 10 MB, 4 connections", (Request("POST", "/orders/upload", length=10 << 20),), 4
    ),
    "new-connections": Workload("a connection for each request, 32 at once", SMALL, 32, {"Connection": "close"}),
    "mixed": Workload("50 % GET, 20 % POST, 20 % PUT, 10 % DELETE, 32 connections", MIXED),
    "websocket": Messages("messages of 64 bytes and back, 32 connections", (Request("GET", "/echo"),)),
    "slow-upstream": Workload(
        "three instances, of which one takes 200 ms; 32 connections",
        (Request("GET", "/uneven/7"),),
        variants={"health_aware": "/uneven-health/7"},
    ),
}
