from __future__ import annotations

import pytest
import redis
from django.core.management import CommandError, call_command

from gateway.control import publish as publishing
from gateway.control.compile import Compiled, compile_table
from gateway.control.publish import publish
from gateway.models import Route, RouteTarget
from gateway.proxy.router import Router
from gateway.proxy.table import RoutingTable, decode
from gateway.tasks import republish
from registry.live.sections import SECTIONS
from registry.models import Revision, Tenant
from registry.services.changes import SYSTEM, announce, change
from tests.api import api, secret, tenant

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "publisher", publishing.Publisher())


def published(store: redis.Redis) -> RoutingTable:
    body = store.hget(SECTIONS, "routes:body")
    assert isinstance(body, bytes)
    return decode(body)[0]


class TestCompile:
    def test_a_row_becomes_a_route_that_the_matcher_takes(self) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", {"name": "gold", "rate": 5, "burst": 9, "by": "header:X-App"})
        client.post("/v1/breaker-policies", {"name": "strict", "consecutive_failures": 2})
        client.post("/v1/upstreams", {"service": "orders", "load_balancing": "p2c", "breaker_policy": "strict"})
        client.post(
            "/v1/routes",
            {
                "name": "orders",
                "path": "/orders",
                "headers": [{"name": "X-A", "value": "b"}],
                "rate_limit_policy": "gold",
                "targets": [{"service": "orders", "weight": 9, "version": ">=2"}, {"service": "old"}],
            },
        )
        table = compile_table(1).table
        [route], [upstream], [limit] = table.routes, table.upstreams, table.rate_limits
        assert [(each.service, each.weight, each.version) for each in route.targets] == [
            ("orders", 9, ">=2"),
            ("old", 100, ""),
        ]
        assert (route.rate_limits, limit.rate, limit.burst, limit.by) == (("gold",), 5.0, 9, "header:X-App")
        assert (upstream.load_balancing, upstream.breaker and upstream.breaker.consecutive_failures) == ("p2c", 2)
        assert Router(table).match("default", "any", "GET", "/orders/1", [(b"x-a", b"b")]).route == route
        assert decode(publishing.encode(table)) == (table, [])

    def test_what_is_switched_off_is_not_in_it(self) -> None:
        api().post("/v1/routes", {"name": "off", "service": "orders", "enabled": False})
        api("acme").post("/v1/routes", {"name": "theirs", "service": "orders"})
        Tenant.objects.filter(name="acme").update(active=False)
        assert compile_table(1).table.routes == ()

    @pytest.mark.parametrize(
        "broken",
        [
            {"path": "no slash"},
            {"path": "(", "path_type": "regex"},
            {"hosts": ["a b"]},
            {"hosts": None},
            {"headers": ["X-A"]},
            {"headers": [{"name": "X-A"}]},
            {"query": 5},
        ],
    )
    def test_a_broken_row_is_left_out_and_named(self, broken: dict[str, object]) -> None:
        client = api()
        client.post("/v1/routes", {"name": "good", "service": "orders"})
        client.post("/v1/routes", {"name": "bad", "service": "orders"})
        row = Route.objects.get(name="bad")
        for name, value in broken.items():
            setattr(row, name, value)
        if broken != {"hosts": None}:  # the database itself refuses that
            row.save()
        else:
            Route.objects.filter(name="bad").update(hosts=5)
        compiled = compile_table(1)
        assert [route.name for route in compiled.table.routes] == ["good"]
        assert [(each.kind, each.name) for each in compiled.skipped] == [("route", "bad")]

    def test_a_route_without_targets_is_left_out(self) -> None:
        api().post("/v1/routes", {"name": "bad", "service": "orders"})
        RouteTarget.objects.all().delete()
        assert "weight above 0" in str(compile_table(1).skipped[0])

    def test_it_takes_four_queries_however_many_rows(self, django_assert_max_num_queries) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", {"name": "gold", "rate": 5, "burst": 9})
        for number in range(20):
            service = f"service-{number}"
            client.post("/v1/routes", {"name": service, "service": service, "rate_limit_policy": "gold"})
            client.post("/v1/upstreams", {"service": service})
        with django_assert_max_num_queries(5):
            assert len(compile_table(1).table.routes) == 20


class TestPublish:
    def test_an_edit_is_in_the_store_once_it_is_committed(
        self, store: redis.Redis, django_capture_on_commit_callbacks
    ) -> None:
        client = api()
        with django_capture_on_commit_callbacks(execute=True):
            client.post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders"})
        assert [route.name for route in published(store).routes] == ["orders"]

    def test_it_announces_nothing_when_nothing_of_the_table_changed(self, store: redis.Redis) -> None:
        api().post("/v1/routes", {"name": "orders", "service": "orders"})
        assert publish().stored
        assert not publish().stored
        before = published(store).revision
        secret()
        assert not publish().stored
        assert published(store).revision == before < Revision.objects.get().number

    def test_another_process_keeps_the_number_that_is_served(self, store: redis.Redis, monkeypatch) -> None:
        api().post("/v1/routes", {"name": "orders", "service": "orders"})
        publish()
        secret()
        monkeypatch.setattr(publishing, "publisher", publishing.Publisher())
        assert not publish().stored

    def test_an_older_revision_never_replaces_a_newer_one(self, store: redis.Redis) -> None:
        api().post("/v1/routes", {"name": "orders", "service": "orders"})
        publish()
        Route.objects.all().delete()
        Revision.objects.update(number=1)
        assert not publish().stored
        assert len(published(store).routes) == 1

    def test_what_stands_in_the_store_and_is_no_table_is_replaced(self, store: redis.Redis) -> None:
        store.hset(SECTIONS, "routes:body", b"{")
        assert publish().stored
        assert published(store).routes == ()

    def test_a_store_that_is_away_fails_no_edit(self, settings, caplog, django_capture_on_commit_callbacks) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1"
        client = api()
        with django_capture_on_commit_callbacks(execute=True):
            assert client.post("/v1/routes", {"name": "orders", "service": "orders"}).status_code == 201
        assert "The store is away" in caplog.text

    def test_the_edits_of_one_transaction_cost_one_table(
        self, store: redis.Redis, monkeypatch, django_capture_on_commit_callbacks
    ) -> None:
        compiled: list[int] = []

        def counting(number: int) -> Compiled:
            compiled.append(number)
            return compile_table(number)

        monkeypatch.setattr(publishing, "compile_table", counting)
        client = api()
        with django_capture_on_commit_callbacks(execute=True):
            client.post("/v1/routes", {"name": "orders", "service": "orders"})
        assert len(compiled) == 1
        publish()
        assert len(compiled) == 2

    def test_a_wiped_store_gets_the_table_again(self, store: redis.Redis) -> None:
        api().post("/v1/routes", {"name": "orders", "service": "orders"})
        publish()
        store.flushall()
        republish()
        assert len(published(store).routes) == 1

    def test_a_broken_row_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        api().post("/v1/routes", {"name": "bad", "service": "orders"})
        RouteTarget.objects.all().delete()
        publish()
        publish()
        assert caplog.text.count("route default/bad is left out") == 1


class TestCommands:
    def test_publish_table_says_what_it_did(self, capsys: pytest.CaptureFixture[str]) -> None:
        api().post("/v1/routes", {"name": "orders", "service": "orders"})
        call_command("publish_table")
        call_command("publish_table")
        said = capsys.readouterr().out.splitlines()
        assert [line.split(" with ")[1] for line in said] == [
            "1 routes published.",
            "1 routes is what the gateway has already.",
        ]

    def test_publish_table_fails_in_one_line_when_the_store_is_away(self, settings) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1"
        with pytest.raises(CommandError, match="The store is away"):
            call_command("publish_table")

    def test_explain_route_shows_every_route(self, capsys: pytest.CaptureFixture[str]) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders"})
        client.post("/v1/routes", {"name": "web", "path": "/", "service": "web"})
        call_command("explain_route", "http://any.example.com/orders/7", "--header", "X-A: b")
        said = capsys.readouterr().out
        assert "orders" in said.splitlines()[0]
        assert "web" in said

    @pytest.mark.parametrize("arguments", [["nonsense"], ["/a%00b"], ["/", "--header", "X"], ["/", "--tenant", "no"]])
    def test_explain_route_refuses_in_one_line(self, arguments: list[str]) -> None:
        tenant()
        with pytest.raises(CommandError):
            call_command("explain_route", *arguments)


def test_only_a_change_that_a_table_may_show_is_published(
    store: redis.Redis, django_capture_on_commit_callbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        announce("registry.Member")
    assert not store.hexists(SECTIONS, "routes:body")
    with django_capture_on_commit_callbacks(execute=True), change(SYSTEM, "created", row := Tenant(name="acme")):
        row.save()
    assert published(store).routes == ()
