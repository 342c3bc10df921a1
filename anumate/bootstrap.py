"""What must be there before anything else: the tables, the first tenant, administrator and API key.

It may run any number of times, and several at once: it adds what is missing and changes nothing that is there. Secrets
are never printed: they are kept in the state directory, from where the first start that comes up shows them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, models

from anumate.lib.env import Env, not_accepted
from anumate.lib.redis import UNAVAILABLE
from anumate.lib.state import PASSWORD_FILE, keep_secret, was_shown
from gateway.control.publish import publish
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, RouteTarget, Upstream
from registry.live import keys
from registry.models import ApiKey, Service, Tenant
from registry.scopes import ALL
from registry.services.changes import SYSTEM, change
from registry.services.sections import publish_sections

Row = TypeVar("Row", bound=models.Model)

LOCK = 0x616E756D617465  # "anumate", as PostgreSQL's advisory locks are numbers

DEMO_ROUTES = {"orders": Upstream.Strategy.WEIGHTED, "inventory": Upstream.Strategy.LEAST_CONNECTIONS}


class BootstrapError(Exception):
    """Why the platform cannot begin, as one sentence."""


def bootstrap(env: Env, *, demo: bool = False) -> bool:
    """Make what is missing; whether the administrator is new, or nobody has been told yet how to sign in."""
    _reach_database()
    with _alone():
        call_command("migrate", interactive=False, verbosity=0)
        tenant = _ensure(Tenant, name="default", defaults={"title": "Default"})
        first = ensure_administrator(env)
        ensure_key(env, tenant)
        if demo:
            ensure_demo(tenant)
    # Now, rather than at the next beat: who starts now finds its sections in place. If the store is away, beat does it.
    with suppress(*UNAVAILABLE):
        publish_sections()
        publish()
    return first


def ensure_administrator(env: Env) -> bool:
    """The first administrator; whether it is to be shown how they sign in. None is made where there is one already."""
    if not User.objects.filter(is_superuser=True).exists():
        password = env.admin_password or keep_secret(settings.HOME, PASSWORD_FILE, secrets.token_urlsafe(12))
        User.objects.create_superuser(env.admin_username, password=password)
        return True
    return not was_shown(settings.HOME) and _opens(env)


def _opens(env: Env) -> bool:
    """Whether what we would show is how the first administrator, who has never been here, signs in."""
    user = User.objects.filter(username=env.admin_username, is_superuser=True, last_login=None).first()
    with suppress(OSError):
        password = env.admin_password or (settings.HOME / PASSWORD_FILE).read_text(encoding="utf-8").strip()
        return user is not None and user.check_password(password)
    return False


def ensure_key(env: Env, tenant: Tenant) -> None:
    """The key that the environment or the state directory gives is known. One that was revoked stays so."""
    if env.bootstrap_api_key and not keys.well_formed(env.bootstrap_api_key):
        raise BootstrapError(not_accepted("ANUMATE_BOOTSTRAP_API_KEY", "", "a well-formed key, anm_…", secret=True))
    full = env.bootstrap_api_key or keep_secret(settings.HOME, "api-key", keys.make()[1])
    public_id = full.split("_")[1]
    _ensure(
        ApiKey,
        public_id=public_id,
        defaults={
            "tenant": tenant,
            "name": "first key",
            "secret_hash": keys.secret_hash(settings.API_KEY_PEPPER, full),
            "scopes": sorted(ALL),
        },
    )


def ensure_demo(tenant: Tenant) -> None:
    """A route to each demo service, and policies to look at and change."""
    breaker = _ensure(BreakerPolicy, tenant=tenant, name="default", defaults={"open_seconds": 10.0})
    limit = _ensure(RateLimitPolicy, tenant=tenant, name="default", defaults={"rate": 1000.0, "burst": 1000})
    for name, strategy in DEMO_ROUTES.items():
        service = _ensure(Service, tenant=tenant, name=name, defaults={"description": "A service of the demo."})
        _ensure(Upstream, service=service, defaults={"load_balancing": strategy, "breaker_policy": breaker})
        if not Route.objects.filter(tenant=tenant, name=name).exists():
            route = Route(tenant=tenant, name=name, path=f"/{name}", rate_limit_policy=limit)
            with change(SYSTEM, "created", route):
                route.save()
                RouteTarget.objects.create(route=route, service=service)


def _ensure(model: type[Row], *, defaults: dict[str, Any], **lookup: Any) -> Row:
    found = model._default_manager.filter(**lookup).first()
    if found is not None:
        return found
    made = model(**lookup, **defaults)
    with change(SYSTEM, "created", made):
        made.save()
    return made


def _reach_database() -> None:
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        name = settings.DATABASES["default"]
        where = f"{name['HOST']}:{name['PORT'] or 5432}/{name['NAME']}" if name.get("HOST") else name["NAME"]
        reason = " ".join(str(error).split())
        raise BootstrapError(f"the database {where} cannot be reached: {reason} (DATABASE_URL).") from None


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time where replicas that start together share a database; SQLite belongs to one machine's `start`."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
