from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from anumate.stack import preflight
from anumate.stack.process import StartError


def test_a_taken_port_is_named_with_the_flag_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} on 127.0.0.1 is taken; choose another with --port"):
            preflight.port_free("127.0.0.1", port, "--port")


def test_a_free_port_is_no_matter() -> None:
    preflight.port_free("127.0.0.1", preflight.free_port(), "--port")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match="cannot be opened"):
        preflight.port_free("192.0.2.1", 8090, "--port")


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"state directory .*file/home cannot be written: not a directory"):
        preflight.claim_home(tmp_path / "file" / "home")


def test_two_starts_do_not_share_a_state_directory(tmp_path: Path) -> None:
    held = preflight.claim_home(tmp_path)
    with pytest.raises(StartError, match=f"in use by another start \\(process {os.getpid()}\\)"):
        preflight.claim_home(tmp_path)
    os.close(held)
    os.close(preflight.claim_home(tmp_path))


def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    port = preflight.free_port()
    with pytest.raises(StartError, match=rf"Redis at redis://:\*\*\*@127.0.0.1:{port} cannot be reached"):
        preflight.redis_reachable(f"redis://:secret@127.0.0.1:{port}")


def test_a_redis_that_answers_is_no_matter(redis_url: str) -> None:
    preflight.redis_reachable(redis_url)
