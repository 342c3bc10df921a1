from __future__ import annotations

from pathlib import Path

from anumate.lib.database import database
from anumate.lib.state import keep_secret, store_url


def test_without_an_address_the_database_is_sqlite_that_waits_its_turn() -> None:
    entry = database("", Path("home"))
    assert entry["ENGINE"].endswith("sqlite3")
    assert entry["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in entry["OPTIONS"]["init_command"]


def test_a_postgresql_address_is_taken_apart() -> None:
    entry = database("postgresql://user:p%40ss@db.example:5433/name?sslmode=require", Path("home"))
    assert (entry["HOST"], entry["PORT"], entry["NAME"]) == ("db.example", "5433", "name")
    assert (entry["USER"], entry["PASSWORD"]) == ("user", "p@ss")
    assert entry["OPTIONS"]["sslmode"] == "require"
    assert entry["CONN_MAX_AGE"] == 0


def test_the_embedded_store_is_found_while_it_runs(tmp_path: Path) -> None:
    assert store_url(tmp_path) == "redis://127.0.0.1:6379"
    (tmp_path / "redis-url").write_text("redis://:pw@127.0.0.1:4711\n")
    assert store_url(tmp_path) == "redis://:pw@127.0.0.1:4711"


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made = keep_secret(tmp_path / "home", "secret")
    assert keep_secret(tmp_path / "home", "secret", "another") == made
    assert (tmp_path / "home" / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["secret"]
