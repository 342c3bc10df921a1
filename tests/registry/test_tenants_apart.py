"""Nothing of one tenant is found by another: every operation of the documented API is tried with a stranger's key."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import redis
from django.db import connections
from rest_framework.test import APIClient

from gateway.proxy.reports import FORCE
from health.models import Flip
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import SyncStore
from registry.models import ApiKey, AuditEntry
from registry.services import projection
from registry.services.changes import SYSTEM
from registry.services.sections import publish_sections
from registry.services.tenants import save_tenant
from tests.api import api, code, documented, secret, tenant
from tests.conftest import eventually
from tests.registry.serving import PEPPER, Served, serving

THEIRS = Key("acme", "theirs", "theirs-1")
DOCUMENT = Document(version="1", endpoints={"http": Endpoint("http", "10.0.0.1", 80)}, zone="theirs-zone")
# What a stranger sends: bodies that are in order, so that nothing but the tenant stands in the way.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/health/configure": {"service_name": "theirs", "check_type": "tcp"},
    "/v1/routes": {"name": "mine", "path": "/mine", "service": "mine", "rate_limit_policy": "theirs"},
    "/v1/upstreams": {"service": "mine", "breaker_policy": "theirs"},
    "/v1/api-keys": {},
    "/v1/breaker-policies": {},
    "/v1/rate-limit-policies": {},
    "/v1/tenants": {"name": "acme"},
}
# What a stranger may well send: it is about everything of their own, which is nothing.
ABOUT_ALL = {"/v1/config", "/v1/leases/held/release"}
READS_BY_POST = {"/v1/routes/explain": {"path": "/theirs"}}

Operation = tuple[str, str]


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    """Tenant acme with one of everything, all called theirs."""
    known = SyncStore(store)
    known.register(THEIRS, DOCUMENT)
    known.put_fact(THEIRS, "held", Fact("held", since=time.time(), expires_at=time.time() + 600))
    return known


@pytest.fixture
def owner(live: SyncStore, db: None) -> APIClient:
    client = api("acme")
    ApiKey.objects.update(name="theirs")
    for path, body in {
        "/v1/rate-limit-policies": {"name": "theirs", "rate": 1, "burst": 1},
        "/v1/breaker-policies": {"name": "theirs"},
        "/v1/routes": {"name": "theirs", "path": "/theirs", "service": "theirs", "rate_limit_policy": "theirs"},
        "/v1/upstreams": {"service": "theirs"},
        "/v1/jwt-issuers": {
            "name": "theirs",
            "issuer": "https://theirs",
            "audiences": ["theirs"],
            "algorithms": ["RS256"],
            "jwks_url": "https://theirs/keys",
        },
        "/v1/health/configure": {"service_name": "theirs", "check_type": "tcp"},
    }.items():
        answer = client.post(path, body)
        assert answer.status_code == 201, answer.content
    Flip.objects.create(tenant=tenant("acme"), service="theirs", instance_id="theirs-1", old="healthy", new="unhealthy")
    projection._last_full = float("-inf")
    projection.project(live.redis)
    return client


def filled(path: str) -> str:
    """The path of what is theirs."""
    names = {"/v1/zones": "theirs-zone", "/v1/circuit-breakers": "theirs-circuit", "/v1/tenants": "acme"}
    name = next((name for start, name in names.items() if path.startswith(start)), "theirs")
    public_id = ApiKey.objects.get(tenant__name="acme").public_id
    values = {"name": name, "id": "theirs-1", "public_id": public_id, "action": "open"}
    return re.sub(r"{(\w+)}", lambda match: values[match[1]], path)


def send(client: APIClient, method: str, path: str) -> Any:
    body = {**BODIES, **READS_BY_POST}.get(path, {"state": "draining"} if path.endswith("/state") else {})
    return getattr(client, method)(filled(path), None if method == "get" else body)


class TestDjangosOperations:
    def test_the_owner_sees_what_is_theirs_by_each_reading_one(self, owner: APIClient) -> None:
        """Else the tests below would show nothing."""
        for method, path in documented(lane=False):
            if method == "get" or path in READS_BY_POST:
                answer = send(owner, method, path)
                word = "acme" if path.startswith("/v1/tenants") else "theirs"
                assert (answer.status_code, word in answer.content.decode()) == (200, True), f"{method} {path}"

    def test_a_stranger_finds_nothing_by_any_reading_one(self, owner: APIClient) -> None:
        stranger = api("other")
        for method, path in documented(lane=False):
            if method == "get" or path in READS_BY_POST:
                answer = send(stranger, method, path)
                text = answer.content.decode().replace(READS_BY_POST.get(path, {}).get("path", "-"), "")
                assert answer.status_code == (404 if "{" in path else 200), f"{method} {path}"
                assert "theirs" not in text, f"{method} {path}"
                assert "acme" not in text, f"{method} {path}"

    def test_a_stranger_changes_nothing_by_any_writing_one(self, owner: APIClient, live: SyncStore) -> None:
        stranger = api("other")
        before = _all_of_acme(live)
        for method, path in documented(lane=False):
            if method == "get" or path in READS_BY_POST:
                continue
            answer = send(stranger, method, path)
            if "{" in path:
                assert code(answer) == (404, "not_found"), f"{method} {path}"
            else:
                assert 400 <= answer.status_code < 500 or path in ABOUT_ALL, f"{method} {path}"
        assert _all_of_acme(live) == before

    def test_the_owner_is_not_told_that_there_is_nothing(self, owner: APIClient) -> None:
        """So that the strangers' 404 above is about whose it is."""
        for method, path in documented(lane=False):
            if "{" in path and method in {"post", "put", "patch"}:
                assert send(owner, method, path).status_code != 404, f"{method} {path}"


def _all_of_acme(live: SyncStore) -> tuple[Any, ...]:
    audit = list(AuditEntry.objects.filter(tenant__name="acme").values_list("pk", flat=True))
    return audit, live.snapshot().known, live.redis.hgetall(FORCE)


class TestTheLanesOperations:
    @pytest.fixture
    async def lane(self, live: SyncStore, redis_url: str) -> Any:
        async with serving(redis_url) as served:
            yield served

    @pytest.mark.parametrize("operation", documented(lane=True), ids=" ".join)
    async def test_a_stranger_neither_finds_nor_changes_anything(
        self, lane: Served, live: SyncStore, operation: Operation
    ) -> None:
        before = live.read([THEIRS])
        await getattr(self, _name_of(operation))(lane, live)
        assert live.read([THEIRS]) == before

    async def get_services(self, lane: Served, live: SyncStore) -> None:
        for query in ("", "?service_name=theirs", "?status=any", "?zone=theirs-zone"):
            seen = await lane.http.get(f"/v1/services{query}", headers=lane.key("acme"))
            none = await lane.http.get(f"/v1/services{query}", headers=lane.key())
            assert "theirs" in seen.text or "status" in query
            assert "theirs" not in none.text

    async def get_services_watch(self, lane: Served, live: SyncStore) -> None:
        live.register(Key("default", "ours", "one"), DOCUMENT)
        seen = ""
        async with lane.http.stream("GET", "/v1/services/watch", headers=lane.key()) as stream:
            async for piece in stream.aiter_text():
                seen += piece
                if '"two"' in seen:
                    break
                if '"one"' in seen:
                    live.register(Key("acme", "theirs", "theirs-2"), DOCUMENT)
                    live.register(Key("default", "ours", "two"), DOCUMENT)
        assert "theirs-1" not in seen
        assert "theirs-2" not in seen

    async def post_services_register(self, lane: Served, live: SyncStore) -> None:
        endpoints = {"http": {"protocol": "http", "host": "localhost", "port": 1}}
        body = {"name": "theirs", "instance_id": "theirs-1", "endpoints": endpoints}
        made = await lane.http.post("/v1/services/register", json=body, headers=lane.key())
        assert made.status_code == 201
        assert live.read([Key("default", "theirs", "theirs-1")])

    async def delete_services_name_id(self, lane: Served, live: SyncStore) -> None:
        answer = await lane.http.delete("/v1/services/theirs/theirs-1", headers=lane.key())
        assert answer.status_code == 404

    async def put_services_name_id_heartbeat(self, lane: Served, live: SyncStore) -> None:
        answer = await lane.http.put("/v1/services/theirs/theirs-1/heartbeat", headers=lane.key())
        assert answer.status_code == 404


def _name_of(operation: Operation) -> str:
    """The method above that tries it; a new operation of the lane fails until there is one."""
    method, path = operation
    return method + "_" + re.sub(r"\W+", "_", path.removeprefix("/v1/")).strip("_")


@pytest.mark.django_db(transaction=True)
async def test_the_keys_of_a_tenant_that_is_switched_off_stop_within_a_second(
    store: redis.Redis, redis_url: str, settings: Any
) -> None:
    settings.API_KEY_PEPPER = PEPPER
    tenant()
    theirs, acme = {"X-API-Key": secret("acme")}, tenant("acme")
    publish_sections(store)
    try:
        async with serving(redis_url, keys={}) as lane:
            assert (await lane.http.get("/v1/services", headers=theirs)).status_code == 200
            acme.active = False
            save_tenant(SYSTEM, acme)
            await eventually(lambda: _switched_off(lane), seconds=1.0, what="the keys to stop")
            assert (await lane.http.get("/v1/services", headers=theirs)).status_code == 401
    finally:
        connections.close_all()  # this loop's own; the fixtures know only the thread's


def _switched_off(lane: Served) -> bool:
    known = lane.node.keys.tenant("acme")
    return known is not None and not known.active
