"""How gateway workers end, are replaced, and start when nothing else is there: real processes, real signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from anumate.stack.preflight import free_port
from gateway.proxy.certificates import Certificates, listening
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Service, World
from tests.gateway.proxy.test_upstream_tls import Authority, Identity


class Processes:
    """The gateway under gunicorn, as an operator runs it."""

    def __init__(self, world: World, home: Path, port: int, *options: str, workers: int = 2) -> None:
        environ = {
            **os.environ,
            "REDIS_URL": world.redis_url,
            "ANUMATE_HOME": str(home),
            "API_KEY_PEPPER": PEPPER,
            "DEFAULT_RATE_LIMIT": "0",
            "GATEWAY_DRAIN_SECONDS": "5",
        }
        self.port = port
        self._log = (home / "gunicorn.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "anumate_integration_service.app:gateway"),
                *("--worker-class=gateway.proxy.worker.GatewayWorker", f"--workers={workers}"),
                *(f"--bind=127.0.0.1:{port}", "--graceful-timeout=5", "--keep-alive=75", "--no-control-socket"),
                *options,
            ],
            env=environ,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    async def answers(self, path: str = "/-/readyz", status: int = 200) -> None:
        async def asked() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code == status
            return False

        async with asyncio.timeout(30):
            while not await asked():
                assert self.process.poll() is None, "gunicorn ended"

    async def end(self) -> int:
        self.process.terminate()
        status = await asyncio.to_thread(self.process.wait, 20)
        self._log.close()
        return status


@pytest.fixture
async def processes(world: World, service: Service, tmp_path: Path) -> AsyncIterator[Processes]:
    (tmp_path / "home").mkdir()
    found = Processes(world, tmp_path / "home", free_port())
    try:
        await found.answers()
        yield found
    finally:
        await found.end()


async def test_replacing_all_workers_under_load_loses_no_request(processes: Processes, world: World) -> None:
    before = processes.workers()
    statuses: list[int] = []
    failures: list[str] = []
    done = asyncio.Event()

    async def caller() -> None:
        async with httpx.AsyncClient(headers={"X-API-Key": world.key}, timeout=20.0) as client:
            while not done.is_set():
                try:
                    answer = await client.get(f"http://127.0.0.1:{processes.port}/orders")
                    statuses.append(answer.status_code)
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    await eventually(lambda: len(statuses) > 100, what="some load")
    processes.process.send_signal(signal.SIGHUP)
    await eventually(
        lambda: len(processes.workers()) == 2 and not processes.workers() & before, seconds=30, what="new workers"
    )
    reached = len(statuses)
    await eventually(lambda: len(statuses) > reached + 100, seconds=30, what="load on the new ones")
    done.set()
    await asyncio.gather(*callers)
    assert failures == []
    assert set(statuses) == {200}


async def test_a_revoked_key_opens_nothing_after_a_second_whichever_process_is_asked(
    processes: Processes, world: World
) -> None:
    async def ask() -> int:
        async with httpx.AsyncClient(headers={"X-API-Key": world.key}) as client:
            return (await client.get(f"http://127.0.0.1:{processes.port}/orders")).status_code

    assert {await ask() for _ in range(10)} == {200}
    revoked = time.monotonic()
    world.publish_keys()
    statuses: list[int] = []
    while time.monotonic() - revoked < 1.0:
        statuses.append(await ask())
    assert statuses[-1] == 401
    assert {await ask() for _ in range(30)} == {401}


async def test_a_whole_gateway_starts_without_redis_with_what_it_knew_and_says_so(
    processes: Processes, world: World, service: Service, tmp_path: Path
) -> None:
    kept = tmp_path / "home" / "gateway"
    async with httpx.AsyncClient(headers={"X-API-Key": world.key}) as client:
        assert (await client.get(f"http://127.0.0.1:{processes.port}/orders")).status_code == 200
    await processes.end()  # each worker keeps what it knows when it ends
    assert {"catalogue.json", "routes.section", "keys.section"} <= {file.name for file in kept.iterdir()}
    url, world.redis_url = world.redis_url, "redis://127.0.0.1:1"
    try:
        again = Processes(world, tmp_path / "home", processes.port, workers=1)
    finally:
        world.redis_url = url
    try:
        await again.answers()
        async with httpx.AsyncClient(headers={"X-API-Key": world.key}) as client:
            base = f"http://127.0.0.1:{processes.port}"
            assert (await client.get(f"{base}/orders")).status_code == 200
            readiness = (await client.get(f"{base}/-/readyz")).json()
            assert (readiness["source"], readiness["redis"]) == ("disk", "away")
            assert readiness["stale_since"] <= time.time()
            metrics = (await client.get(f"{base}/-/metrics")).text
            flags = [line for line in metrics.splitlines() if line.startswith("anumate_gateway_worker_from_snapshot{")]
            assert [flag[-2:] for flag in flags] == [" 1"]
    finally:
        await again.end()


def _write(directory: Path, identity: Identity) -> tuple[Path, Path]:
    certificate, key = directory / "tls.crt", directory / "tls.key"
    certificate.write_text(identity.certificate)
    key.write_text(identity.key)
    return certificate, key


def test_a_certificate_is_taken_up_when_it_changes_and_a_bad_one_is_not(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = _write(tmp_path, authority.identity("127.0.0.1"))
    files = str(certificate), str(key)
    watched = Certificates(listening(*files), lambda: listening(*files), *files)
    assert not watched.renew()
    _write(tmp_path, authority.identity("127.0.0.1"))
    assert watched.renew()
    assert not watched.renew()
    shutil.copy(certificate, key)
    assert not watched.renew()
    key.unlink()
    assert not watched.renew()
    _write(tmp_path, authority.identity("127.0.0.1"))
    assert watched.renew()


async def test_the_listener_shows_its_new_certificate_to_new_connections_only(
    world: World, service: Service, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    old, new = Authority(), Authority()
    certificate, key = _write(tmp_path, old.identity("127.0.0.1"))
    port = free_port()
    gateway = Processes(world, tmp_path / "home", port, f"--certfile={certificate}", f"--keyfile={key}", workers=1)

    async def trusts(authority: Authority) -> bool:
        context = ssl.create_default_context(cadata=authority.certificate)
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(verify=context) as client:
                return (await client.get(f"https://127.0.0.1:{port}/-/readyz")).status_code == 200
        return False

    async def until(authority: Authority) -> None:
        async with asyncio.timeout(30):
            while not await trusts(authority):
                assert gateway.process.poll() is None, "gunicorn ended"

    try:
        await until(old)
        context = ssl.create_default_context(cadata=old.certificate)
        async with httpx.AsyncClient(verify=context, headers={"X-API-Key": world.key}) as client:
            url = f"https://127.0.0.1:{port}/orders"
            assert (await client.get(url)).status_code == 200
            assert service.calls[-1].one("x-forwarded-proto") == "https"
            _write(tmp_path, new.identity("127.0.0.1"))
            await until(new)
            assert not await trusts(old)
            assert (await client.get(url)).status_code == 200  # on its old connection
    finally:
        await gateway.end()


async def test_a_client_of_an_authority_that_was_removed_is_let_in_no_more(
    world: World, service: Service, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    ours, first, second = Authority(), Authority(), Authority()
    certificate, key = _write(tmp_path, ours.identity("127.0.0.1"))
    authorities = tmp_path / "clients.crt"
    authorities.write_text(first.certificate)
    options = f"--certfile={certificate}", f"--keyfile={key}", f"--ca-certs={authorities}", "--cert-reqs=2"
    gateway = Processes(world, tmp_path / "home", free_port(), *options, workers=1)

    def shown(authority: Authority | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=ours.certificate)
        if authority is not None:
            identity = authority.identity("a client")
            mine = tmp_path / "client.pem"
            mine.write_text(identity.certificate + identity.key)
            context.load_cert_chain(mine)
        return context

    async def lets_in(context: ssl.SSLContext) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(verify=context) as client:
                return (await client.get(f"https://127.0.0.1:{gateway.port}/-/readyz")).status_code == 200
        return False

    async def until_let_in(context: ssl.SSLContext) -> None:
        async with asyncio.timeout(30):
            while not await lets_in(context):
                assert gateway.process.poll() is None, "gunicorn ended"

    one, other = shown(first), shown(second)
    try:
        await until_let_in(one)
        assert not await lets_in(other)
        assert not await lets_in(shown(None))
        authorities.write_text(second.certificate)
        await until_let_in(other)
        assert not await lets_in(one)
    finally:
        await gateway.end()
