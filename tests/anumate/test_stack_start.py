"""Starts that cannot work: one clear line, exit status 1, nothing left behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from anumate.stack.preflight import free_port
from tests.e2e.running import Running, free_ports, processes_in, running

pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for left processes in /proc")


def last_line(platform: Running) -> str:
    assert platform.process.wait(30) == 1
    platform.join()
    assert processes_in(platform.home) == {}
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
    assert line.startswith(f"anumate: the database 127.0.0.1:{port}/x cannot be reached")
    assert "secret" not in platform.output


def test_a_state_directory_in_use(tmp_path: Path) -> None:
    from anumate.stack.preflight import claim_home

    held = claim_home(tmp_path / ".anumate")
    with running(tmp_path, *free_ports()) as platform:
        assert last_line(platform).endswith(f"is in use by another start (process {os.getpid()}).")
    os.close(held)
