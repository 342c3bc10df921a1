from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from anumate.lib import env
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


def test_looking_at_a_state_directory_leaves_nothing_there(tmp_path: Path) -> None:
    preflight.home_usable(tmp_path / "new" / "home")
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_state_directory_finds_who_uses_it(tmp_path: Path) -> None:
    held = preflight.claim_home(tmp_path)
    with pytest.raises(StartError, match=f"in use by another start \\(process {os.getpid()}\\)"):
        preflight.home_usable(tmp_path)
    os.close(held)
    preflight.home_usable(tmp_path)


def test_a_state_directory_below_a_file_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"file/home cannot be written: not a directory \(ANUMATE_HOME\)"):
        preflight.home_usable(tmp_path / "file" / "home")


def test_a_first_key_that_is_no_key_is_refused_without_being_shown() -> None:
    with pytest.raises(StartError, match=r"^ANUMATE_BOOTSTRAP_API_KEY=\(hidden\) is not accepted: it takes a well-"):
        preflight.key_well_formed(env.read({"ANUMATE_BOOTSTRAP_API_KEY": "anm_wrong"}))


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://u:ge:h/e@im@127.0.0.1:{preflight.free_port()}/x?sslmode=disable"
    with pytest.raises(
        StartError, match=r"^DATABASE_URL='postgresql://u:\*\*\*@127.*cannot be used: .*refused"
    ) as raised:
        preflight.database_reachable(url.replace("h/e@im", "h%2Fe%40im"), tmp_path)
    assert "im@" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_database_in_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot be used: there is no directory .*none\."):
        preflight.database_reachable(f"sqlite://{tmp_path}/none/a.db", tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look like one " * 20)
    with pytest.raises(StartError, match="file is not a database"):
        preflight.database_reachable(f"sqlite://{tmp_path}/notes.txt", tmp_path)
    with pytest.raises(StartError, match="unable to open"):
        preflight.database_reachable(f"sqlite://{tmp_path}", tmp_path)


def test_a_database_that_is_there_or_can_be_made_is_no_matter(tmp_path: Path) -> None:
    preflight.database_reachable("", tmp_path / "home")
    preflight.database_reachable(f"sqlite://{tmp_path}/new.db", tmp_path / "home")
    assert list(tmp_path.iterdir()) == []
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    preflight.database_reachable(f"sqlite://{tmp_path}/old.db", tmp_path / "home")
