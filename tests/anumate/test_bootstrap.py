from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import LazySettings
from django.contrib.auth.models import User

from anumate.bootstrap import BootstrapError, bootstrap
from anumate.lib import env as environment
from anumate.lib.env import Env
from anumate.lib.state import note_shown
from gateway.models import Route
from registry.live import keys
from registry.models import ApiKey, AuditEntry, Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: LazySettings, store: redis.Redis) -> Path:
    settings.HOME = tmp_path
    return tmp_path


def env(**variables: str) -> Env:
    return environment.read(variables)


def rows() -> dict[str, Any]:
    models = (Tenant, User, ApiKey, Route, AuditEntry)
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in models}


def test_the_first_start_makes_tenant_administrator_and_a_key_with_every_scope(home: Path) -> None:
    assert bootstrap(env()) is True
    key = (home / "api-key").read_text().strip()
    row = ApiKey.objects.get()
    assert (row.tenant.name, row.public_id) == ("default", key.split("_")[1])
    assert set(row.scopes) == set(keys.SCOPES)
    assert User.objects.get().username == "admin"
    kept = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
    assert kept == {"api-key": 0o600, "admin-password": 0o600}


def test_until_a_start_has_shown_the_password_every_start_is_the_first(home: Path) -> None:
    assert bootstrap(env()) is True
    assert bootstrap(env()) is True
    assert User.objects.get().check_password((home / "admin-password").read_text().strip())
    note_shown(home)
    assert bootstrap(env()) is False


def test_who_has_signed_in_is_told_nothing_any_more() -> None:
    bootstrap(env())
    User.objects.update(last_login="2026-01-01T00:00:00Z")
    assert bootstrap(env()) is False


def test_a_password_that_was_changed_is_not_shown_as_the_old_one() -> None:
    bootstrap(env())
    user = User.objects.get()
    user.set_password("another one")
    user.save()
    assert bootstrap(env()) is False


def test_another_start_changes_nothing(home: Path) -> None:
    bootstrap(env(), demo=True)
    note_shown(home)
    before = rows()
    assert bootstrap(env(), demo=True) is False
    assert rows() == before


def test_the_environment_may_give_name_password_and_key(home: Path) -> None:
    key = keys.make()[1]
    given = env(ANUMATE_ADMIN_USERNAME="root", ANUMATE_ADMIN_PASSWORD="a good one", ANUMATE_BOOTSTRAP_API_KEY=key)
    bootstrap(given)
    assert User.objects.get(username="root").check_password("a good one")
    assert ApiKey.objects.get().public_id == key.split("_")[1]
    assert list(home.iterdir()) == []


def test_a_key_that_is_no_key_is_refused_without_being_shown() -> None:
    with pytest.raises(BootstrapError, match="ANUMATE_BOOTSTRAP_API_KEY") as raised:
        bootstrap(env(ANUMATE_BOOTSTRAP_API_KEY="anm_wrong"))
    assert "anm_wrong" not in str(raised.value)


def test_a_revoked_key_stays_revoked(django_user_model: type[User]) -> None:
    bootstrap(env())
    ApiKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
    bootstrap(env())
    assert ApiKey.objects.get().revoked_at is not None


def test_no_second_administrator_is_made(django_user_model: type[User]) -> None:
    django_user_model.objects.create_superuser("ada", password="x")
    assert bootstrap(env()) is False
    assert not User.objects.filter(username="admin").exists()


def test_a_new_database_takes_the_key_that_is_kept() -> None:
    bootstrap(env())
    public_id = ApiKey.objects.get().public_id
    User.objects.all().delete()
    ApiKey.objects.all().delete()
    assert bootstrap(env()) is True
    assert ApiKey.objects.get().public_id == public_id


def test_the_demo_brings_a_route_for_each_service() -> None:
    bootstrap(env(), demo=True)
    assert {(route.name, route.path, route.targets.get().service.name) for route in Route.objects.all()} == {
        ("orders", "/orders", "orders"),
        ("inventory", "/inventory", "inventory"),
    }


def test_the_gateway_finds_its_table_in_the_store_at_once(store: redis.Redis) -> None:
    bootstrap(env(), demo=True)
    sections = store.hgetall("anumate:{c}:sections")
    assert {b"routes:body", b"keys:body", b"tenants:body"} <= set(sections)
