"""The command line, run as a person runs it: a process, its output, its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from anumate_integration_service.cli.api import Api
from tests import environment
from tests.client.stand_in import Asked, StandIn, stand_in

CODE = "from anumate_integration_service.cli.main import main; main()"
SERVICE = {
    "name": "orders",
    "instance_id": "orders-1",
    "version": "1.0.0",
    "endpoints": {"http": {"protocol": "http", "host": "::1", "port": 8000}},
    "capabilities": ["http_api"],
    "tags": ["[bold]api"],
    "zone": "",
    "status": "healthy",
    "state": "draining",
}


class Ended(NamedTuple):
    status: int
    out: str
    error: str


class Shell:
    """A terminal in a directory of its own, with the registry's address in the environment."""

    def __init__(self, home: Path, registry: StandIn) -> None:
        self.home = home
        self.environ = {**environment.BARE, "ANUMATE_URL": registry.url, "PYTHONPATH": os.getcwd()}

    async def run(self, *arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CODE,
            *arguments,
            cwd=self.home,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), error.decode())


@pytest.fixture
async def registry() -> AsyncIterator[StandIn]:
    async with stand_in() as registry:
        yield registry


@pytest.fixture
def shell(tmp_path: Path, registry: StandIn) -> Shell:
    return Shell(tmp_path, registry)


async def test_services_are_listed_as_a_table(shell: Shell, registry: StandIn) -> None:
    registry.leases["orders-1"] = SERVICE
    ended = await shell.run("services", "list")
    assert ended.status == 0
    title, row = ended.out.splitlines()
    assert title.split() == ["SERVICE", "INSTANCE", "STATUS", "STATE", "VERSION", "ZONE", "ENDPOINTS", "TAGS"]
    assert re.split(r"\s{2,}", row.strip()) == [
        "orders",
        "orders-1",
        "● healthy",
        "▲ draining",
        "1.0.0",
        "–",
        "http://[::1]:8000",
        "[bold]api",
    ]


async def test_filters_are_handed_on(shell: Shell, registry: StandIn) -> None:
    await shell.run("services", "list", "--name", "auth-service", "--status", "healthy", "--tag", "a", "--tag", "b")
    assert registry.asked[-1].query == {"service_name": ["auth-service"], "status": ["healthy"], "tag": ["a", "b"]}


async def test_a_zone_is_a_filter_to_who_lists(shell: Shell, registry: StandIn) -> None:
    await shell.run("services", "list", "--zone", "eu")
    assert registry.asked[-1].query == {"status": ["any"], "zone": ["eu"], "zone_strict": ["true"]}


async def test_a_list_is_json_when_asked(shell: Shell, registry: StandIn) -> None:
    registry.leases["orders-1"] = SERVICE
    ended = await shell.run("services", "list", "--json")
    assert json.loads(ended.out)["services"] == [SERVICE]


async def test_an_empty_list_says_so(shell: Shell) -> None:
    assert (await shell.run("services", "list")).out == "Nothing is registered yet.\n"
    assert (await shell.run("services", "list", "--name", "x")).out == "No instances match.\n"


async def test_an_instance_is_registered_by_hand(shell: Shell, registry: StandIn) -> None:
    ended = await shell.run(
        *("services", "register", "--name", "my-service", "--endpoint", "http:http:localhost:8000"),
        *("--capability", "http_api", "--tag", "production", "--instance", "one", "--metadata", "env=test"),
    )
    assert ended.out == "Registered my-service/one; it stays 30 s without a heartbeat; --hold keeps it.\n"
    assert registry.asked[-1].body == {
        "name": "my-service",
        "version": "",
        "endpoints": {"http": {"protocol": "http", "host": "localhost", "port": 8000}},
        "capabilities": ["http_api"],
        "tags": ["production"],
        "metadata": {"env": "test"},
        "instance_id": "one",
    }
    assert (await shell.run("services", "deregister", "--name", "my-service", "--instance", "one")).status == 0
    assert not registry.leases


@pytest.mark.parametrize("endpoint", ["http", "http:http:localhost", "http:http:localhost:port", ":http:localhost:1"])
async def test_an_endpoint_that_is_none_is_a_usage_error(shell: Shell, endpoint: str) -> None:
    ended = await shell.run("services", "register", "--name", "x", "--endpoint", endpoint)
    assert ended.status == 2
    assert "name:protocol:host:port" in ended.error


async def test_a_refusal_is_one_line_and_status_1(shell: Shell, registry: StandIn) -> None:
    ended = await shell.run("services", "deregister", "--name", "orders", "--instance", "none")
    assert ended == Ended(1, "", "anumate-integration: There is no such lease. (not_found)\n")


async def test_every_field_at_fault_is_named_once(shell: Shell, registry: StandIn) -> None:
    errors = [{"pointer": "/name", "detail": "Use a DNS label."}, {"pointer": "/zone", "detail": "Too long."}]
    problem = {"detail": "/name: Use a DNS label, and 1 more.", "code": "validation_failed", "errors": errors}
    registry.canned["/v1/services/register"] = (422, problem)
    ended = await shell.run("services", "register", "--name", "A", "--endpoint", "http:http:localhost:80")
    expected = "anumate-integration: /name: Use a DNS label.; /zone: Too long. (validation_failed)\n"
    assert ended == Ended(1, "", expected)


async def test_a_platform_that_is_away_is_one_line_and_status_3(shell: Shell) -> None:
    ended = await shell.run("health", "status", "--url", "http://127.0.0.1:1")
    assert ended.status == 3
    assert ended.error.startswith("anumate-integration: http://127.0.0.1:1 cannot be reached")
    assert ended.error.count("\n") == 1


@pytest.mark.parametrize("url", ["foo", "localhost:8090", "http://", "http://localhost:port", "ftp://localhost"])
async def test_an_address_that_is_none_is_one_clear_line(shell: Shell, url: str) -> None:
    shell.environ["ANUMATE_URL"] = url
    expected = f"{url!r} is no address of a control plane: it takes one like http://localhost:8090"
    assert await shell.run("health", "status") == Ended(
        2, "", f"anumate-integration: {expected} (--url or ANUMATE_URL).\n"
    )


async def test_something_else_on_the_port_is_not_taken_for_the_platform(shell: Shell, registry: StandIn) -> None:
    registry.canned["/v1/health/status"] = (404, "no page here")
    ended = await shell.run("health", "status")
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert "answered 404" in ended.error


async def test_the_key_comes_from_the_option_the_environment_or_the_state_directory(
    shell: Shell, registry: StandIn
) -> None:
    def sent() -> str | None:
        return registry.asked[-1].headers.get("x-api-key")

    await shell.run("services", "list")
    assert sent() is None
    (shell.home / ".anumate").mkdir()
    (shell.home / ".anumate" / "api-key").write_text("from the file\n")
    await shell.run("services", "list")
    assert sent() == "from the file"
    shell.environ["ANUMATE_API_KEY"] = "from the environment"
    await shell.run("services", "list")
    assert sent() == "from the environment"
    await shell.run("services", "list", "--api-key", "given", "--tenant", "acme")
    assert sent() == "given"
    assert registry.asked[-1].headers["x-tenant"] == "acme"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8090", True),
        ("http://127.8.0.1", True),
        ("https://[::1]:8090", True),
        ("http://10.0.0.1:8090", False),
        ("https://localhost.example.com", False),
        ("http://localhost@example.com", False),
    ],
)
def test_the_key_of_the_state_directory_is_shown_to_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, shown: bool
) -> None:
    monkeypatch.setenv("ANUMATE_HOME", str(tmp_path))
    (tmp_path / "api-key").write_text("from the file\n")
    with Api(url, "", "") as api:
        assert api._http.headers.get("x-api-key") == ("from the file" if shown else None)
    with Api(url, "given", "") as api:
        assert api._http.headers["x-api-key"] == "given"


async def test_breakers_are_listed_from_every_page(
    shell: Shell, registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pages(asked: Asked) -> tuple[int, object]:
        number = int(asked.query.get("page", ["1"])[0])
        breaker = {"name": f"breaker-{number}", "state": "closed", "calls": 1, "failures": 0}
        following = f"http://elsewhere/v1/circuit-breakers?page={number + 1}" if number < 3 else None
        return 200, {"count": 3, "next": following, "previous": None, "results": [breaker]}

    monkeypatch.setattr(registry, "_answer", pages)
    ended = await shell.run("circuit", "list")
    assert re.findall(r"breaker-\d", ended.out) == ["breaker-1", "breaker-2", "breaker-3"]
    assert len(json.loads((await shell.run("circuit", "list", "--json")).out)["results"]) == 3


async def test_the_common_options_may_stand_before_the_command(shell: Shell, registry: StandIn) -> None:
    del shell.environ["ANUMATE_URL"]
    registry.leases["orders-1"] = SERVICE
    ended = await shell.run("--url", registry.url, "--json", "services", "list")
    assert (ended.status, ended.error) == (0, "")
    assert json.loads(ended.out)["services"][0]["instance_id"] == "orders-1"


async def test_what_stands_behind_the_command_wins_over_what_stands_before_it(shell: Shell, registry: StandIn) -> None:
    ended = await shell.run("--url", "http://localhost:1", "services", "list", "--url", registry.url)
    assert (ended.status, ended.error) == (0, "")


async def test_start_talks_to_no_platform_and_says_so(shell: Shell) -> None:
    ended = await shell.run("--url", "http://localhost:1", "start")
    assert ended.status == 2
    assert "does not talk to one" in ended.error
    assert len(ended.error.splitlines()) == 1
