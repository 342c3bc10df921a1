"""What is asked of every proxy alike: a load on one of its routes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from benchmarks import load
from benchmarks.load import Request
from benchmarks.processes import cpu_seconds, memory
from benchmarks.stand import OTHER


@dataclass(frozen=True)
class Contestant:
    """A proxy that runs, and its route for each path's first word where it is another one."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    key: str
    routes: Mapping[str, str] = field(default_factory=dict)


class Sample(NamedTuple):
    """One contestant in one round; `cpu_us` is processor time of all its processes for a request, `busy` its share of
    the core, in per cent."""

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
    about: str
    requests: Sequence[Request]
    connections: int = 32
    headers: dict[str, str] = field(default_factory=dict)

    def variants(self, contestant: Contestant) -> list[Contestant]:
        return [contestant]

    def measure(self, contestant: Contestant, seconds: float) -> Sample:
        headers = {"X-API-Key": contestant.key, **self.headers}
        before = cpu_seconds(contestant.process.pid)
        result = load.send(
            f"http://127.0.0.1:{contestant.port}",
            self.requests,
            core=OTHER,
            seconds=seconds,
            connections=self.connections,
            headers=headers,
        )
        used = cpu_seconds(contestant.process.pid) - before
        answered = max(1.0, result.per_second * seconds)
        rss, pss = memory(contestant.process.pid)
        return Sample(*result, used / answered * 1e6, used / seconds * 100, rss, pss)


_SMALL: Final = (Request("GET", "/orders/7"),)

WORKLOADS: Final[dict[str, Workload]] = {
    "small-1": Workload("67 bytes of JSON, 1 connection kept alive", _SMALL, 1),
    "small-32": Workload("67 bytes of JSON, 32 connections kept alive", _SMALL, 32),
    "small-256": Workload("67 bytes of JSON, 256 connections kept alive", _SMALL, 256),
}
