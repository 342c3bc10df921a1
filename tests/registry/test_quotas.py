from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis

from anumate.lib.redis import connect
from registry.live.keys import TenantRecord, TenantSection
from registry.live.sections import publish
from registry.models import Tenant
from registry.services import sections
from tests.api import api, code, pointers
from tests.conftest import eventually
from tests.registry.serving import Served, serving

ENDPOINTS = {"http": {"protocol": "http", "host": "localhost", "port": 8000}}


async def limit(lane: Served, redis_url: str, revision: int = 2, **quotas: int) -> None:
    wanted = TenantRecord("default", **quotas)  # type: ignore[arg-type]
    with connect(redis_url) as client:
        publish(client, "tenants", origin="test", revision=revision, body=msgspec.json.encode(TenantSection((wanted,))))
    await eventually(lambda: lane.node.keys.tenant("default") == wanted)


async def register(lane: Served, name: str, instance: str) -> tuple[int, dict[str, Any]]:
    body = {"name": name, "instance_id": instance, "endpoints": ENDPOINTS}
    answer = await lane.http.post("/v1/services/register", json=body, headers=lane.key())
    return answer.status_code, answer.json()


async def test_a_registration_over_the_quota_is_refused_with_the_limit_and_a_renewal_never_is(
    store: redis.Redis, redis_url: str
) -> None:
    async with serving(redis_url) as lane:
        await limit(lane, redis_url, max_instances=2, max_services=1, max_requests_per_second=2)
        assert [(await register(lane, "orders", name))[0] for name in "ab"] == [201, 201]
        status, refused = await register(lane, "orders", "c")
        assert (status, refused["code"]) == (429, "quota_exceeded")
        for _ in range(5):
            assert (await register(lane, "orders", "a"))[0] == 200
            beat = await lane.http.put("/v1/services/orders/b/heartbeat", headers=lane.key())
            assert beat.status_code == 200
        await limit(lane, redis_url, revision=3, max_instances=2)
        status, refused = await register(lane, "orders", "c")
        assert (status, refused["detail"]) == (429, "This tenant may have 2 instances, and has them.")


async def test_discovery_beyond_the_requests_of_a_second_is_refused_and_says_when_to_come_back(
    store: redis.Redis, redis_url: str
) -> None:
    async with serving(redis_url) as lane:
        await limit(lane, redis_url, max_requests_per_second=1)
        answers = [await lane.http.get("/v1/services", headers=lane.key()) for _ in range(3)]
        refused = answers[-1]
        assert (answers[0].status_code, refused.status_code, refused.headers["retry-after"]) == (200, 429, "1")
        assert refused.json()["detail"] == "This tenant may send 1 requests a second here."


@pytest.mark.django_db
class TestTenants:
    def test_a_tenants_quotas_are_written_read_and_published(self) -> None:
        client = api()
        made = client.post("/v1/tenants", {"name": "acme", "max_instances": 100})
        shown = {name: made.json()[name] for name in ("max_services", "max_instances", "max_requests_per_second")}
        assert shown == {"max_services": None, "max_instances": 100, "max_requests_per_second": None}
        client.patch("/v1/tenants/acme", {"max_services": 7, "max_instances": None})
        row = Tenant.objects.get(name="acme")
        assert (row.max_services, row.max_instances) == (7, None)
        (record,) = [each for each in sections.tenants().tenants if each.name == "acme"]
        assert (record.max_services, record.max_instances, record.max_requests_per_second) == (7, None, None)

    @pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
    def test_a_quota_is_a_whole_number_above_nothing(self, value: object) -> None:
        refused = api().post("/v1/tenants", {"name": "acme", "max_instances": value})
        assert code(refused) == (422, "validation_failed")
        assert pointers(refused) == ["/max_instances"]
