"""What the package gives to the tests of those who use it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import anumate_integration_service as package
from anumate_integration_service import RegistryUnavailable, create_discovery_client, errors
from anumate_integration_service.pytest_plugin import anumate_registry as anumate_registry
from anumate_integration_service.testing import FakeRegistry
from tests.conftest import eventually

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_tuple_is_answered_as_long_as_nothing_changed() -> None:
    registry = FakeRegistry()
    one = registry.add("orders", "http://10.0.0.1:80", version="1.2.0", tags=["eu"], zone="a")
    other = registry.add("orders", "http://10.0.0.2:81", zone="b")
    assert registry.instances("orders") is registry.instances("orders") == (one, other)
    assert registry.instances("orders", version=">=1,<2") == (one,)
    assert registry.instances("orders", tags=("eu",)) is registry.instances("orders", tags=("eu",)) == (one,)
    assert registry.instances("orders", zone="b") == (other,)
    assert registry.instances("nobody") == ()
    registry.remove(other)
    registry.remove(other)
    assert registry.instances("orders") == (one,)


@pytest.mark.parametrize("changes", [{}, {"status": "healthy", "state": "draining"}])
def test_who_is_unhealthy_or_held_back_is_not_answered(changes: dict[str, str]) -> None:
    registry = FakeRegistry()
    instance = registry.mark(registry.add("orders"), **changes)
    assert registry.instances("orders") == ()
    registry.mark(instance, status="healthy")
    assert len(registry.instances("orders")) == 1


async def test_an_apps_own_client_registers_there(anumate_registry: FakeRegistry) -> None:
    async with create_discovery_client(service_name="orders", http_port=8000, host="127.0.0.1", instance_id="o-1"):
        (registered,) = anumate_registry.registrations
        assert registered["instance_id"] == "o-1"
        (instance,) = anumate_registry.instances("orders")
        assert instance.url == "http://127.0.0.1:8000"
    assert anumate_registry.departures == [("orders", "o-1")]
    assert anumate_registry.instances("orders") == ()


async def test_a_client_hears_of_changes_and_survives_an_outage(anumate_registry: FakeRegistry) -> None:
    async with create_discovery_client(service_name="web", http_port=8000, host="127.0.0.1") as client:
        assert await client.get_service_by_name("orders") == []
        anumate_registry.add("orders", instance_id="o-1")

        async def names() -> list[str]:
            return [each.instance_id for each in await client.get_service_by_name("orders")]

        async with asyncio.timeout(10):
            while not await names():
                await asyncio.sleep(0.01)
        anumate_registry.go_down()
        assert await names() == ["o-1"]
        anumate_registry.come_back()


async def test_while_it_is_down_nobody_registers_and_afterwards_they_do(anumate_registry: FakeRegistry) -> None:
    anumate_registry.go_down()
    client = create_discovery_client(service_name="web", http_port=8000, host="127.0.0.1")
    await client.start()
    assert not client.registered
    with pytest.raises(RegistryUnavailable):
        await client.get_services()
    anumate_registry.come_back()
    await eventually(lambda: client.registered)
    await client.stop()


async def test_a_lost_lease_is_answered_like_the_registry_does(anumate_registry: FakeRegistry) -> None:
    answered = httpx.put(f"{anumate_registry.url}/v1/services/orders/o-1/heartbeat")
    assert (answered.status_code, answered.json()["code"]) == (404, "not_found")
    answered = httpx.post(f"{anumate_registry.url}/v1/services/register", content=b"{")
    assert answered.status_code == 400


def test_collecting_with_the_plugin_loads_nothing_heavy() -> None:
    code = (
        "import sys, anumate_integration_service.pytest_plugin\n"
        "heavy = {'django', 'httpx', 'http.server', 'asyncio', 'anumate_integration_service.client'}\n"
        "sys.exit(', '.join(heavy & (sys.modules.keys() - before)) or 0)"
    )
    code = "import sys, pytest\nbefore = set(sys.modules)\n" + code
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_fixture_serves_another_project(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(
        "import os\n"
        "def test_it(anumate_registry):\n"
        "    assert os.environ['ANUMATE_URL'] == anumate_registry.url != ''\n"
        "    assert anumate_registry.add('orders').instance_id == 'orders-8000'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "anumate_integration_service.pytest_plugin", str(tmp_path)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("DJANGO_SETTINGS_MODULE")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_errors_need_no_http_library_and_every_public_name_is_there() -> None:
    code = "import anumate_integration_service.errors, sys; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    for name in package.__all__:
        assert getattr(package, name)
    assert package.NoInstances is errors.NoInstances
