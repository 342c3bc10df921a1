from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anumate.lib import env
from anumate.lib.env import EnvError


def test_nothing_set_gives_the_defaults_of_the_contract() -> None:
    values = env.read({})
    assert (values.redis_url, values.database_url, values.home) == ("", "", Path(".anumate"))
    assert (values.gateway_port, values.default_rate_limit, values.log_level) == (8080, 1000, "info")
    assert (values.circuit_breaker_failure_threshold, values.circuit_breaker_recovery_timeout) == (5, 60.0)
    assert values.gateway_enabled
    assert values.health_manager_enabled
    assert values.api_key_required


def test_empty_text_means_not_set() -> None:
    assert env.read({"GATEWAY_PORT": "", "REDIS_URL": ""}) == env.read({})


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("GATEWAY_PORT", "eighty", "a whole number from 1 to 65535"),
        ("GATEWAY_PORT", "70000", "a whole number from 1 to 65535"),
        ("REDIS_URL", "localhost:6379", "an address that starts with redis://, rediss://"),
        ("REDIS_URL", "redis://", "a host after redis://"),
        ("REDIS_URL", "redis://localhost:port", "a port from 1 to 65535 after the host"),
        ("REDIS_URL", "redis://localhost:0", "a port from 1 to 65535 after the host"),
        ("REDIS_URL", "redis://[::1]:99999/0", "a port from 1 to 65535 after the host"),
        ("REDIS_URL", "redis+sentinel://a:26379,b:x/main/0", "a port from 1 to 65535 after the host"),
        ("REDIS_URL", "unix://", "the path of a socket"),
        ("DATABASE_URL", "postgresql://db:port/x", "a port from 1 to 65535 after the host"),
        ("DATABASE_URL", "postgresql://db", "the database's name after the host"),
        ("DATABASE_URL", "postgresql:///x", "a host after postgresql://"),
        ("DATABASE_URL", "sqlite://data/x.db", "a file's whole path after sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:", "a file's whole path after sqlite://"),
        ("DATABASE_URL", "sqlite:x.db", "sqlite://, postgres://, postgresql://"),
        ("DATABASE_URL", "mysql://db/x", "sqlite://, postgres://, postgresql://"),
        ("LOG_LEVEL", "loud", "one of debug, info"),
        ("GATEWAY_ENABLED", "perhaps", "true or false"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy", "networks like 10.0.0.0/8"),
        ("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "nan", "a number from 0.1"),
    ],
)
def test_a_bad_value_is_one_line_with_name_value_and_what_is_accepted(name: str, value: str, accepted: str) -> None:
    with pytest.raises(EnvError) as raised:
        env.read({name: value})
    line = str(raised.value)
    assert line.startswith(f"{name}={value!r} is not accepted: it takes ")
    assert accepted in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "url",
    [
        "http://user:geheim@redis:6379",
        "redis://:geheim@redis:port",
        "redis://user:a:geheim@redis:port",
        "redis://user:a@geheim@redis:port",
        "redis://user:a/geheim@redis:port",
        "redis:geheim@redis",
        "http://redis:6379?password=geheim",
    ],
)
def test_a_password_in_an_address_is_not_shown(url: str) -> None:
    with pytest.raises(EnvError) as raised:
        env.read({"REDIS_URL": url})
    assert "geheim" not in str(raised.value)


def test_a_password_that_should_be_encoded_is_said_to_be_the_fault() -> None:
    with pytest.raises(EnvError, match=r"it takes a password in which / is written %2F"):
        env.read({"DATABASE_URL": "postgresql://user:a/b@db/x"})


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///var/lib/anumate.db",
        "postgres://user:p%2Fw@db:5432/name?sslmode=require",
        "postgresql:///name?host=/run/postgresql",
        "postgresql://postgres:@/postgres?host=/run/postgresql",
        "postgresql://[::1]/name",
        "postgresql://?service=main",
    ],
)
def test_every_way_to_name_a_database_is_accepted(url: str) -> None:
    assert env.read({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a:26379,b:26379/main/0", "redis+cluster://a:6379", "rediss://a:6380/1"]
)
def test_every_way_to_run_redis_is_accepted(url: str) -> None:
    assert env.read({"REDIS_URL": url}).redis_url == url


def test_lists_may_be_separated_by_commas_or_spaces() -> None:
    assert env.read({"ALLOWED_HOSTS": "a.example, b.example c.example"}).allowed_hosts == (
        "a.example",
        "b.example",
        "c.example",
    )


def test_a_value_may_be_kept_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    assert env.read({"SECRET_KEY_FILE": str(tmp_path / "secret")}).secret_key == "from a file"
    both = {"SECRET_KEY_FILE": str(tmp_path / "secret"), "SECRET_KEY": "direct"}
    assert env.read(both).secret_key == "direct"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"SECRET_KEY_FILE=.*cannot be read"):
        env.read({"SECRET_KEY_FILE": str(tmp_path / "none")})


def test_settings_end_with_one_line(tmp_path: Path) -> None:
    environ = {"GATEWAY_PORT": "x", "ANUMATE_HOME": str(tmp_path), "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-c", "import anumate.settings"], env=environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "anumate: GATEWAY_PORT='x' is not accepted: it takes a whole number from 1 to 65535."
    ]


def test_the_example_names_every_variable() -> None:
    text = env.example()
    for field in env.fields(env.Env):
        assert f"\n#{field.metadata['name']}=" in text
