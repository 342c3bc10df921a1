from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import redis

from gateway.control.breakers import merge
from gateway.control.metrics import Traffic, read_traffic
from gateway.proxy import guard, recorder
from gateway.proxy.reports import LeftOut
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import SyncStore
from registry.models import AuditEntry
from registry.services import audit
from tests.api import api, code

pytestmark = pytest.mark.django_db


def report(store: redis.Redis, worker: str, *breakers: guard.BreakerReport) -> None:
    """What a gateway worker writes, in the data plane's own types."""
    store.set(f"{guard.REPORTS}:{worker}", msgspec.json.encode(guard.WorkerReport(worker, 1.0, breakers)))
    store.zadd(guard.REPORTS, {worker: 1.0})


def breaker(service: str = "orders", tenant: str = "default", **more: Any) -> guard.BreakerReport:
    values: dict[str, Any] = {
        "state": "closed",
        "forced": False,
        "generation": 1,
        "reason": "",
        "seconds_in_state": 1.0,
        "retry_in": 0.0,
        "calls": 10,
        "failures": 0,
        "slow_calls": 0,
        "failure_rate": 0.0,
        "consecutive_failures": 0,
        **more,
    }
    return guard.BreakerReport(tenant=tenant, service=service, name=f"{service}-circuit", **values)


class TestInstancesLeftOut:
    def leave_out(self, store: redis.Redis, *workers: str) -> None:
        SyncStore(store).register(
            Key("default", "orders", "a"), Document(endpoints={"http": Endpoint("http", "127.0.0.1", 8000)})
        )
        for worker in workers:
            words = (
                LeftOut("default", "orders", "a", 12.0, "5 requests in a row failed."),
                LeftOut("acme", "orders", "theirs", 12.0),
            )
            said = guard.WorkerReport(worker, 1.0, left_out=words)
            store.set(f"{guard.REPORTS}:{worker}", msgspec.json.encode(said))
            store.zadd(guard.REPORTS, {worker: 1.0})

    def test_explain_names_who_is_left_out_and_why(self, store: redis.Redis) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        self.leave_out(store, "w1", "w2")
        [place] = client.post("/v1/routes/explain", {"path": "/orders"}).json()["destinations"]
        [candidate] = place["instances"]
        assert (candidate["instance_id"], candidate["eligible"], candidate["left_out"]) == ("a", True, 2)
        assert candidate["sentence"] == (
            "2 workers of the gateway leave it out, for 12 s more at most: 5 requests in a row failed."
        )

    def test_metrics_count_them(self, store: redis.Redis) -> None:
        self.leave_out(store, "w1", "w2")
        client = api()
        [service] = client.get("/v1/metrics").json()["load_balancing"]
        assert (service["service"], service["left_out_instances"]) == ("orders", 1)
        text = client.get("/v1/metrics", headers={"Accept": "text/plain"}).content.decode()
        assert 'anumate_left_out_instances{tenant="default",service="orders"} 1' in text
        assert "theirs" not in text


class TestSkipped:
    """What workers cannot serve of a table."""

    def test_explain_says_it_to_its_tenant_and_metrics_count_it(self, store: redis.Redis) -> None:
        ours, theirs = (
            guard.Skipped(tenant, "old", f"Route old of {tenant} is bad.") for tenant in ("default", "acme")
        )
        for worker, skipped in (("a", (ours, theirs)), ("b", (ours,)), ("c", ())):
            said = guard.WorkerReport(worker, 1.0, skipped=skipped)
            store.set(f"{guard.REPORTS}:{worker}", msgspec.json.encode(said))
            store.zadd(guard.REPORTS, {worker: 1.0})
        assert api().post("/v1/routes/explain", {}).json()["skipped"] == ["Route old of default is bad."]
        assert api("acme").post("/v1/routes/explain", {}).json()["skipped"] == ["Route old of acme is bad."]
        metrics = api().get("/v1/metrics").json()
        assert [each["skipped"] for each in metrics["gateway"]["workers"]] == [2, 1, 0]
        text = api().get("/v1/metrics", headers={"Accept": "text/plain"}).content.decode()
        assert 'anumate_gateway_table_skipped{worker="a"} 2' in text


class TestBreakers:
    def test_a_breaker_is_the_worst_of_what_its_workers_say(self, store: redis.Redis) -> None:
        report(store, "a", breaker(calls=30, failures=3))
        report(store, "b", breaker(state="open", reason="5 calls failed in a row.", retry_in=9.0, failures=5))
        report(store, "c", breaker("theirs", "acme", state="open"))
        body = api().get("/v1/circuit-breakers").json()
        assert body["count"] == 1
        [seen] = body["results"]
        assert (seen["name"], seen["state"], seen["workers"], seen["open_workers"]) == ("orders-circuit", "open", 2, 1)
        assert (seen["calls"], seen["failures"], seen["failure_rate"]) == (40, 8, 0.2)
        assert seen["reason"] == "5 calls failed in a row."
        assert api().get("/v1/circuit-breakers/orders-circuit").json() == seen

    def test_a_service_that_nobody_called_yet_has_a_closed_breaker(self, store: redis.Redis) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        assert client.get("/v1/circuit-breakers/orders-circuit").json()["workers"] == 0

    def test_a_report_that_cannot_be_read_hides_no_other(self, store: redis.Redis, caplog) -> None:
        report(store, "a", breaker())
        store.set(f"{guard.REPORTS}:b", b"{")
        store.zadd(guard.REPORTS, {"b": 1.0, "gone": 1.0})
        assert api().get("/v1/circuit-breakers").json()["count"] == 1
        assert "worker b" in caplog.text

    @pytest.mark.parametrize(("action", "past"), [("open", "opened"), ("close", "closed"), ("reset", "reset")])
    def test_an_operator_forces_every_worker(self, store: redis.Redis, action: str, past: str) -> None:
        report(store, "a", breaker())
        heard = store.pubsub()
        heard.subscribe(guard.FORCE_CHANNEL)
        heard.get_message(timeout=1)
        client = api()
        first = client.post(f"/v1/circuit-breakers/orders-circuit/{action}", {"reason": "deploy"})
        second = client.post(f"/v1/circuit-breakers/orders-circuit/{action}")
        assert (first.status_code, second.status_code) == (202, 202)
        assert second.json()["generation"] > first.json()["generation"]
        assert heard.get_message(timeout=1)
        raw = store.hgetall(guard.FORCE)
        assert isinstance(raw, dict)
        force = guard._forces(raw)["default", "orders"]
        assert (force.action, force.generation) == (action, second.json()["generation"])
        entry = AuditEntry.objects.filter(action=f"breaker {past}").last()
        assert entry is not None
        assert entry.reason == "deploy"

    def test_a_word_is_younger_than_the_last_also_when_the_stores_clock_went_back(self, store: redis.Redis) -> None:
        report(store, "a", breaker())
        ahead = guard.Force("open", 9_000_000_000_000_000 // 2)
        store.hset(guard.FORCE, "default/orders", msgspec.json.encode(ahead))
        assert api().post("/v1/circuit-breakers/orders-circuit/reset").json()["generation"] == ahead.generation + 1

    @pytest.mark.parametrize("body", [b"{", b"5", b"{}", b"\xff"])
    def test_a_word_that_cannot_be_read_is_replaced(self, store: redis.Redis, body: bytes) -> None:
        report(store, "a", breaker())
        store.hset(guard.FORCE, "default/orders", body)
        assert api().post("/v1/circuit-breakers/orders-circuit/open").status_code == 202
        raw = store.hgetall(guard.FORCE)
        assert isinstance(raw, dict)
        assert guard._forces(raw)["default", "orders"].action == "open"

    def test_of_two_operators_at_once_the_younger_word_stays(
        self, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        report(store, "a", breaker())
        faster = [guard.Force("close", 9_000_000_000_000_000 // 2, "another")]

        def note(*args: Any, **more: Any) -> None:
            if faster:  # between the number that ours was given and its coming into force
                store.hset(guard.FORCE, "default/orders", msgspec.json.encode(faster.pop()))
            audit.note(*args, **more)

        monkeypatch.setattr("gateway.control.breakers.note", note)
        said = api().post("/v1/circuit-breakers/orders-circuit/open").json()
        raw = store.hgetall(guard.FORCE)
        assert isinstance(raw, dict)
        force = guard._forces(raw)["default", "orders"]
        assert (force.action, force.generation) == ("open", said["generation"])
        assert force.generation > 9_000_000_000_000_000 // 2
        assert AuditEntry.objects.filter(action="breaker opened").count() == 1

    @pytest.mark.parametrize("name", ["theirs-circuit", "nobody-circuit", "orders"])
    def test_a_breaker_of_another_tenant_or_of_nobody_is_not_found(self, store: redis.Redis, name: str) -> None:
        report(store, "a", breaker("theirs", "acme"))
        assert code(api().get(f"/v1/circuit-breakers/{name}")) == (404, "not_found")
        assert code(api().post(f"/v1/circuit-breakers/{name}/open")) == (404, "not_found")
        assert not store.exists(guard.FORCE)

    def test_it_refuses_what_it_does_not_know(self, store: redis.Redis) -> None:
        report(store, "a", breaker())
        assert code(api().post("/v1/circuit-breakers/orders-circuit/open", {"why": "x"})) == (422, "validation_failed")
        assert code(api().post("/v1/circuit-breakers/orders-circuit/smash")) == (404, "not_found")
        reader = api(scopes=("gateway:read",))
        assert code(reader.post("/v1/circuit-breakers/orders-circuit/open")) == (403, "scope_missing")

    def test_it_says_so_when_the_store_is_away(self, settings) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1"
        assert code(api().get("/v1/circuit-breakers")) == (503, "unavailable")

    def test_open_comes_before_half_open_before_closed(self) -> None:
        reports = [guard.BreakerReport("default", "orders", state) for state in ("closed", "half_open", "open")]  # type: ignore[arg-type]
        assert [merge(reports[:count])[0].state for count in (1, 2, 3)] == ["closed", "half_open", "open"]


class TestMetrics:
    @pytest.fixture
    def counted(self, store: redis.Redis) -> redis.Redis:
        fields = {
            "default|orders|orders|200": 98,
            "default|orders|orders|200|sum": "1.5",
            "default|orders|orders|200|le|0.01": 90,
            "default|orders|orders|200|le|0.1": 8,
            "default|orders|orders|502": 2,
            "default|orders|orders|502|sum": "0.5",
            "default|orders|orders|502|le|inf": 2,
            "default|||404": 5,
            "acme|secret|secret|200": 1000,
        }
        store.hset(recorder.COUNTERS, mapping=fields)
        live = SyncStore(store)
        for number in (1, 2):
            document = Document(endpoints={"http": Endpoint("http", "10.0.0.1", number)})
            live.register(Key("default", "orders", f"o-{number}"), document)
        live.put_fact(Key("default", "orders", "o-1"), "probe", Fact("unhealthy", "It answered 500."))
        report(store, "a", breaker(state="open"))
        return store

    def test_they_tell_of_registry_health_balancing_breakers_and_gateway(self, counted: redis.Redis) -> None:
        body = api().get("/v1/metrics").json()
        assert body["registry"] == {
            "index": body["registry"]["index"],
            "services": 1,
            "instances": 2,
            "eligible_instances": 1,
        }
        assert body["health"] == {"healthy": 0, "degraded": 0, "unhealthy": 1, "unknown": 1}
        assert body["load_balancing"] == [
            {
                "service": "orders",
                "strategy": "round_robin",
                "instances": 2,
                "eligible_instances": 1,
                "left_out_instances": 0,
            }
        ]
        assert body["circuit_breakers"] == {"orders-circuit": "open"}
        gateway = body["gateway"]
        assert (gateway["requests"], gateway["errors"]) == (105, 2)
        assert gateway["by_status"] == {"200": 98, "404": 5, "502": 2}
        [unmatched, orders] = gateway["routes"]
        assert (unmatched["route"], unmatched["requests"]) == ("", 5)
        assert (orders["route"], orders["mean_seconds"]) == ("orders", 0.02)
        assert 0 < orders["p50_seconds"] < 0.01 < orders["p95_seconds"] <= 0.1
        assert "secret" not in json.dumps(body)

    def test_prometheus_reads_them(self, counted: redis.Redis) -> None:
        response = api().get("/v1/metrics", headers={"Accept": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"})
        assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = response.content.decode().splitlines()
        assert "# TYPE anumate_gateway_requests_total counter" in lines
        one = 'tenant="default",route="orders",service="orders"'
        assert f'anumate_gateway_requests_total{{{one},status="200"}} 98' in lines
        assert f'anumate_gateway_request_duration_seconds_bucket{{{one},le="0.1"}} 98' in lines
        assert f'anumate_gateway_request_duration_seconds_bucket{{{one},le="+Inf"}} 100' in lines
        assert f"anumate_gateway_request_duration_seconds_sum{{{one}}} 2" in lines
        assert 'anumate_circuit_breaker_state{tenant="default",service="orders",state="open"} 1' in lines
        assert 'anumate_instances{tenant="default",service="orders",health="unhealthy"} 1' in lines
        assert len(lines) == len(set(lines))

    def test_open_metrics_ends_with_its_mark(self, counted: redis.Redis) -> None:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        response = api().get("/v1/metrics", headers={"Accept": accept})
        text = response.content.decode()
        assert response["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert "# TYPE anumate_gateway_requests counter" in text
        assert text.endswith("# EOF\n")

    def test_a_refusal_is_a_problem_whatever_was_asked_for(self) -> None:
        response = api(scopes=("registry:read",)).get("/v1/metrics", headers={"Accept": "text/plain"})
        assert code(response) == (403, "scope_missing")

    def test_there_are_figures_before_there_is_traffic(self, store: redis.Redis) -> None:
        body = api().get("/v1/metrics").json()
        assert (body["gateway"]["requests"], body["gateway"]["p99_seconds"]) == (0, 0.0)
        assert api().get("/v1/metrics", headers={"Accept": "text/plain"}).status_code == 200

    def test_quantiles_lie_within_their_bucket(self) -> None:
        assert Traffic(by_bound={0.1: 10, 0.2: 10}).quantile(0.75) == pytest.approx(0.15)
        assert Traffic(by_bound={0.1: 10, float("inf"): 90}).quantile(0.99) == 0.1
        assert Traffic().quantile(0.5) == 0.0

    def test_statuses_of_a_route_are_added_up(self) -> None:
        found = read_traffic([("t|r|s|200", "3"), ("t|r|s|500", "1"), ("t|r|s|500|sum", "0.25")])
        assert (found["r", "s"].requests, found["r", "s"].errors, found["r", "s"].seconds) == (4, 1, 0.25)
