"""The client in web frameworks, under real servers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from anumate.stack.preflight import free_port
from anumate_integration_service import create_discovery_client
from anumate_integration_service.integrations.django import is_served
from anumate_integration_service.integrations.starlette import DiscoveryLifespan
from tests import environment
from tests.client.stand_in import StandIn, stand_in
from tests.conftest import eventually

ROOT = Path(__file__).resolve().parents[2]

APP = """
from anumate_integration_service import create_discovery_client
from anumate_integration_service.integrations.starlette import DiscoveryLifespan
import os, sys

async def plain(scope, receive, send):
    if scope["type"] == "lifespan":
        {lifespan}
        return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": str(len(client.instances("orders"))).encode()}})

async def with_lifespan(receive, send):
    await receive()
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    await send({{"type": "lifespan.shutdown.complete"}})

client = create_discovery_client(service_name="orders", http_port=int(os.environ["PORT"]), instance_id="orders-1"{more})
app = DiscoveryLifespan(plain, client{options})
assert "starlette" not in sys.modules and "django" not in sys.modules
"""
PROJECT = """
import os
SECRET_KEY = "a secret of a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["anumate_integration_service.integrations.django.DiscoveryConfig"]
ANUMATE_DISCOVERY = {"service_name": "orders", "http_port": int(os.environ["PORT"]), "instance_id": "orders-1"}
"""
URLS = """
from anumate_integration_service.integrations.django import discovery
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(str(len(discovery().instances("orders")))))]
"""
UVICORN = (sys.executable, "-m", "uvicorn", "--log-level=warning")


@pytest.fixture
async def registry() -> AsyncIterator[StandIn]:
    async with stand_in() as registry:
        yield registry


class Service:
    """A server process of the test's own making."""

    def __init__(self, home: Path, registry: StandIn, *argv: str) -> None:
        self.port = free_port()
        environ = {
            **environment.BARE,
            "PYTHONPATH": f"{home}:{ROOT}",
            "PORT": str(self.port),
            "ANUMATE_URL": registry.url,
            "DJANGO_SETTINGS_MODULE": "project",
        }
        filled = [part.format(port=self.port) for part in argv]
        self.process = subprocess.Popen(
            filled, cwd=home, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    async def text(self) -> str:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{self.port}/")).text

    async def end(self) -> tuple[int, str]:
        """Ask it to end; its exit code and what it complained of."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.to_thread(self.process.communicate, timeout=30)
        return self.process.returncode, errors


def asgi(tmp_path: Path, registry: StandIn, lifespan: str, options: str = "", more: str = "") -> Service:
    (tmp_path / "service.py").write_text(APP.format(lifespan=lifespan, options=options, more=more))
    return Service(tmp_path, registry, *UVICORN, "--port={port}", "service:app")


@pytest.mark.parametrize(
    "lifespan", ["await with_lifespan(receive, send)", "raise ValueError('only http')"], ids=["with", "without"]
)
async def test_an_asgi_application_is_registered_while_it_is_served(
    tmp_path: Path, registry: StandIn, lifespan: str
) -> None:
    service = asgi(tmp_path, registry, lifespan)
    await eventually(lambda: "orders-1" in registry.leases, seconds=20)
    async with asyncio.timeout(10):
        while await service.text() != "1":
            await asyncio.sleep(0.01)
    await service.end()
    assert registry.count("DELETE", "/orders/orders-1") == 1


async def test_it_leaves_before_its_server_stops_listening(tmp_path: Path, registry: StandIn) -> None:
    service = asgi(tmp_path, registry, "await with_lifespan(receive, send)", options=", drain=60")
    try:
        await eventually(lambda: "orders-1" in registry.leases, seconds=20)
        service.process.send_signal(signal.SIGTERM)
        await eventually(lambda: registry.count("DELETE", "/orders/orders-1"))
        assert await service.text() in {"0", "1"}
    finally:
        service.process.send_signal(signal.SIGTERM)  # no need to wait for the whole drain
        await service.end()


async def test_a_signal_while_it_registers_leaves_with_the_drain_too() -> None:
    async with stand_in() as registry:
        registry.slow = asyncio.Event()
        listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        client = create_discovery_client(
            service_name="orders", instance_id="orders-1", http_port=port, host="127.0.0.1", registry_url=registry.url
        )
        wrapped = DiscoveryLifespan(None, client, drain=60, handle_signals=False)  # type: ignore[arg-type]
        async with listener:
            await wrapped._join({"type": "lifespan.startup.complete"})
            await eventually(lambda: registry.count("POST", "/register"))
            leaving = asyncio.create_task(wrapped._leave(60))
            registry.slow.set()
            await eventually(lambda: registry.count("DELETE", "/orders/orders-1"))
            assert not leaving.done()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)


async def test_an_application_is_served_though_it_could_not_register(tmp_path: Path, registry: StandIn) -> None:
    registry.refuse_with = 401
    service = asgi(tmp_path, registry, "await with_lifespan(receive, send)")
    await eventually(lambda: registry.count("POST", "/register"), seconds=20)
    assert await service.text() == "0"
    assert "refuses orders-1" in (await service.end())[1]


async def test_an_application_does_not_start_where_registration_is_required(tmp_path: Path, registry: StandIn) -> None:
    registry.refuse_with = 401
    service = asgi(tmp_path, registry, "await with_lifespan(receive, send)", more=", required=True")
    await asyncio.to_thread(service.process.wait, 20)
    assert "not registered: The stand-in says no." in (await service.end())[1]


def django(tmp_path: Path, registry: StandIn, *argv: str) -> Service:
    (tmp_path / "project.py").write_text(PROJECT)
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "service.py").write_text(
        "from django.core.asgi import get_asgi_application\nfrom django.core.wsgi import get_wsgi_application\n"
        "def __getattr__(name):\n"
        "    return {'asgi': get_asgi_application, 'wsgi': get_wsgi_application}[name]()\n"
    )
    return Service(tmp_path, registry, *argv)


@pytest.mark.parametrize(
    "argv",
    [
        (*UVICORN, "--port={port}", "service:asgi"),
        (
            sys.executable,
            "-m",
            "gunicorn",
            "--preload",
            "-w2",
            "-b127.0.0.1:{port}",
            "--no-control-socket",
            "--log-level=error",
            "service:wsgi",
        ),
        (sys.executable, "-m", "gunicorn", "-w2", "-b127.0.0.1:{port}", "--no-control-socket", "service:wsgi"),
        (sys.executable, "-m", "django", "runserver", "127.0.0.1:{port}"),
    ],
    ids=["asgi", "wsgi preloaded", "wsgi", "runserver"],
)
async def test_a_django_project_is_one_instance_however_it_is_served(
    tmp_path: Path, registry: StandIn, argv: tuple[str, ...]
) -> None:
    service = django(tmp_path, registry, *argv)
    try:
        await eventually(lambda: "orders-1" in registry.leases, seconds=30)
        async with asyncio.timeout(10):
            while await service.text() != "1":
                await asyncio.sleep(0.01)
        assert registry.count("POST", "/register") == 1
    finally:
        await service.end()
    if "runserver" not in argv:  # its autoreloader kills the process that serves
        assert registry.count("DELETE", "/orders/orders-1") == 1


async def test_a_management_command_registers_nothing(tmp_path: Path, registry: StandIn) -> None:
    command = django(tmp_path, registry, sys.executable, "-m", "django", "check")
    await asyncio.to_thread(command.process.wait, 30)
    assert (await command.end())[0] == 0
    assert registry.asked == []


@pytest.mark.parametrize(
    ("argv", "environ", "callers", "served"),
    [
        (["manage.py", "migrate"], {}, set(), False),
        (["manage.py", "runserver"], {}, set(), False),
        (["manage.py", "runserver"], {"RUN_MAIN": "true"}, set(), True),
        (["manage.py", "runserver", "--noreload"], {}, set(), True),
        (["/x/django/__main__.py", "migrate"], {}, set(), False),
        (["/bin/gunicorn", "service:wsgi"], {}, set(), True),
        (["/x/uvicorn/__main__.py", "service:asgi"], {}, set(), True),
        (["/bin/celery", "worker"], {}, set(), False),
        (["/bin/pytest"], {}, set(), False),
        (["own_server.py"], {}, {"django.core.wsgi"}, True),
        ([], {}, set(), False),
    ],
)
def test_who_serves_is_known_from_how_it_was_started(
    argv: list[str], environ: dict[str, str], callers: set[str], served: bool
) -> None:
    assert is_served(argv, environ, callers) is served
