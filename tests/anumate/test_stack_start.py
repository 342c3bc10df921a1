"""Starts that cannot work: one clear line, exit status 1, nothing left behind."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from anumate.stack.options import Options
from anumate.stack.preflight import free_port
from anumate.stack.start import _environ
from tests.conftest import wait_until
from tests.e2e.running import Running, free_ports, processes_in, running

pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for left processes in /proc")


def last_line(platform: Running) -> str:
    assert platform.process.wait(30) == 1
    platform.join()
    assert processes_in(platform.home) == {}
    assert not (platform.home / ".anumate").exists()
    return platform.lines[-1]


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with running(tmp_path, "--port", str(port)) as platform:
            expected = f"anumate: port {port} on 127.0.0.1 is taken; choose another with --port."
            assert last_line(platform) == expected


def test_a_taken_gateway_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with running(tmp_path, "--port", str(free_port()), environ={"GATEWAY_PORT": str(port)}) as platform:
            assert last_line(platform).endswith("is taken; choose another with --gateway-port.")


def test_one_port_for_both(tmp_path: Path) -> None:
    port = str(free_port())
    with running(tmp_path, "--port", port, "--gateway-port", port) as platform:
        expected = f"anumate: port {port} is the control plane's and the gateway's; choose another with --port or"
        assert last_line(platform).startswith(expected)


@pytest.mark.parametrize(
    ("flag", "number", "high"),
    [
        ("--port", "0", 65535),
        ("--gateway-port", "65536", 65535),
        ("--workers", "0", 64),
        ("--gateway-workers", "-1", 64),
    ],
)
def test_a_number_that_is_not_accepted(tmp_path: Path, flag: str, number: str, high: int) -> None:
    with running(tmp_path, flag, number) as platform:
        expected = f"anumate: {flag} {number} is not accepted: it takes a whole number from 1 to {high}."
        assert last_line(platform) == expected
    assert platform.lines == [expected]


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with running(tmp_path, *free_ports(), environ={"ANUMATE_HOME": "file/home"}) as platform:
        assert "file/home cannot be written: not a directory (ANUMATE_HOME)." in last_line(platform)


def test_a_redis_that_is_away(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    with running(tmp_path, *free_ports(), "--redis", url) as platform:
        assert last_line(platform).startswith(f"anumate: Redis at {url} cannot be reached")


def test_a_variable_that_is_not_accepted(tmp_path: Path) -> None:
    with running(tmp_path, environ={"DEFAULT_RATE_LIMIT": "much"}) as platform:
        assert last_line(platform).startswith("anumate: DEFAULT_RATE_LIMIT='much' is not accepted: it takes a whole")


def test_a_database_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, *free_ports(), "--database-url", f"postgresql://u:secret@127.0.0.1:{port}/x") as platform:
        line = last_line(platform)
    assert line.startswith(f"anumate: DATABASE_URL='postgresql://u:***@127.0.0.1:{port}/x' cannot be used: ")
    assert "secret" not in platform.output


def test_a_database_address_without_a_name(tmp_path: Path) -> None:
    with running(tmp_path, *free_ports(), environ={"DATABASE_URL": "postgresql://u:secret@db"}) as platform:
        line = last_line(platform)
    assert line.startswith(
        "anumate: DATABASE_URL='postgresql://u:***@db' is not accepted: it takes the database's name"
    )


def test_a_first_key_that_is_malformed(tmp_path: Path) -> None:
    with running(tmp_path, *free_ports(), environ={"ANUMATE_BOOTSTRAP_API_KEY": "anm_x"}) as platform:
        assert last_line(platform).startswith("anumate: ANUMATE_BOOTSTRAP_API_KEY=(hidden) is not accepted: it takes")


def test_a_state_directory_in_use(tmp_path: Path) -> None:
    from anumate.stack.preflight import claim_home

    held = claim_home(tmp_path / "kept")
    with running(tmp_path, *free_ports(), environ={"ANUMATE_HOME": "kept"}) as platform:
        assert last_line(platform).endswith(f"is in use by another start (process {os.getpid()}).")
    os.close(held)


@pytest.mark.parametrize(("host", "named"), [("10.1.2.3", ["10.1.2.3"]), ("fd00::1", ["[fd00::1]"]), ("0.0.0.0", [])])  # noqa: S104
def test_who_listens_for_others_answers_to_its_own_name(
    monkeypatch: pytest.MonkeyPatch, host: str, named: list[str]
) -> None:
    monkeypatch.delenv("ALLOWED_HOSTS", raising=False)
    names = _environ(Options(host=host))["ALLOWED_HOSTS"].split(",")
    assert set(names) == {"localhost", "127.0.0.1", "[::1]", socket.gethostname(), *named}


def test_names_that_were_given_are_all_that_is_answered_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", "control.example.com")
    assert _environ(Options(host="10.1.2.3"))["ALLOWED_HOSTS"] == "control.example.com"


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_the_password_is_shown_by_the_first_start_that_comes_up(tmp_path: Path) -> None:
    ports = free_ports()
    with running(tmp_path, *ports) as failing:
        wait_until(lambda: "database" in failing.output, seconds=30, what="the first rows")
        failing.interrupt()
        assert "Sign in" not in failing.output
    with running(tmp_path, *ports) as platform:
        platform.wait_until_up()
        platform.interrupt()
    shown = re.search(r"Sign in +admin / (\S+)", platform.output)
    assert shown is not None
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and shown[1].encode() in path.read_bytes()]
    assert [(path.name, path.stat().st_mode & 0o777) for path in holding] == [("admin-password", 0o600)]
    with running(tmp_path, *ports) as again:
        again.wait_until_up()
        again.interrupt()
    assert "Sign in" not in again.output
