"""`manage.py import_services`, from files and from servers on real ports."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command

from registry.live.instances import Key
from registry.live.store import SyncStore
from registry.models import AuditEntry, Instance, Revision, Service
from tests.api import tenant
from tests.registry.importing.test_parsers import CATALOGUE, HEALTH, INSTANCE, apps

pytestmark = pytest.mark.django_db

ANSWERS = {
    "/v1/catalog/services": {"consul": [], "orders": ["v2"], "ledger": []},
    "/v1/health/service/orders": [CATALOGUE],
    "/v1/health/service/ledger": [HEALTH],
    "/eureka/apps": apps(INSTANCE | {"status": "OUT_OF_SERVICE"}),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = ANSWERS.get(self.path)
        content = json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _default_tenant(store: redis.Redis) -> None:
    tenant()


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("import_services", *arguments, stdout=out)
    return out.getvalue()


def test_a_consul_server_is_taken_over(
    server: str, store: redis.Redis, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        out = run("--from", "consul", server)
    assert out.splitlines() == [
        "orders/orders-1 http://172.17.0.3:8000",
        "ledger/ledger http://10.1.10.13:50051 (maintenance: 'new disks')",
        "Registered 2 instances of 2 services.",
    ]
    known = SyncStore(store).snapshot().known
    assert {key for key, each in known.items() if each.document} == {
        Key("default", "orders", "orders-1"),
        Key("default", "ledger", "ledger"),
    }
    state = known[Key("default", "ledger", "ledger")].facts["state"]
    assert (state.value, state.source) == ("maintenance", "import_services")
    assert Revision.objects.get().number == 1
    assert {service.name for service in Service.objects.all()} == {"orders", "ledger"}


def test_importing_again_only_renews(server: str) -> None:
    run("--from", "eureka", server)
    before = (AuditEntry.objects.count(), Revision.objects.get().number)
    run("--from", "eureka", f"{server}/eureka/apps")
    assert (AuditEntry.objects.count(), Revision.objects.get().number) == before
    assert Instance.objects.get().state == "maintenance"


def test_a_dry_run_registers_nothing(tmp_path: Path, store: redis.Redis) -> None:
    file = tmp_path / "apps.json"
    file.write_text(json.dumps(apps(INSTANCE)), encoding="utf-8")
    assert run("--from", "eureka", str(file), "--dry-run").endswith("Would register 1 instance of 1 service.\n")
    assert not Service.objects.exists()
    assert SyncStore(store).snapshot().known == {}


def test_one_bad_entry_rejects_all_of_them(tmp_path: Path, store: redis.Redis) -> None:
    file = tmp_path / "catalogue.json"
    for bad, said in (
        (CATALOGUE | {"ServiceID": "b", "ServicePort": 0}, "catalogue.json, /1: /endpoints/http/port: "),
        (CATALOGUE, "orders/orders-1 stands there twice"),
    ):
        file.write_text(json.dumps([CATALOGUE, bad]), encoding="utf-8")
        with pytest.raises(CommandError) as refused:
            run("--from", "consul", str(file))
        assert said in str(refused.value)
    assert SyncStore(store).snapshot().known == {}
    assert not Service.objects.exists()


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, server: str) -> None:
    (tmp_path / "no.json").write_text("{", encoding="utf-8")
    for place in (str(tmp_path / "none.json"), str(tmp_path / "no.json"), f"{server}/nothing", "http://127.0.0.1:1"):
        with pytest.raises(CommandError, match="cannot be read"):
            run("--from", "consul", place)
