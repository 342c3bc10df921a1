"""`/v1/config`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from rest_framework.test import APIClient

from gateway.models import Route
from registry.models import AuditEntry, Revision
from tests.api import api, code

pytestmark = pytest.mark.django_db

TEXT = """\
rate_limit_policies:
  - {name: gold, rate: 5, burst: 9}
routes:
  - name: orders
    service: orders
    rate_limit_policy: gold
"""


def send(client: APIClient, text: str, query: str = "") -> Any:
    return client.post(f"/v1/config{query}", data=text, content_type="application/yaml")


def test_a_document_is_applied_and_read_back_in_both_forms() -> None:
    client = api()
    answer = send(client, TEXT)
    assert answer.status_code == 200
    assert [(each["change"], each["section"], each["name"]) for each in answer.json()["changes"]] == [
        ("added", "services", "orders"),
        ("added", "rate_limit_policies", "gold"),
        ("added", "routes", "orders"),
    ]
    assert answer.json()["revision"] == Revision.objects.get().number
    assert AuditEntry.objects.filter(actor_kind="key").count() == 3
    as_json = client.get("/v1/config")
    assert as_json["Content-Type"] == "application/json"
    as_yaml = client.get("/v1/config", headers={"Accept": "application/yaml"})
    assert as_yaml["Content-Type"] == "application/yaml"
    assert yaml.safe_load(as_yaml.content) == as_json.json()
    assert as_json.json()["routes"] == [{"name": "orders", "service": "orders", "rate_limit_policy": "gold"}]


def test_an_export_sent_back_changes_nothing() -> None:
    client = api()
    send(client, TEXT)
    before = Revision.objects.get().number
    answer = client.post("/v1/config?prune=true", client.get("/v1/config").json())
    assert (answer.json()["changes"], answer.json()["revision"]) == ([], before)


def test_a_dry_run_writes_nothing_and_publishes_nothing(django_capture_on_commit_callbacks) -> None:
    client = api()
    before = Revision.objects.get().number
    with django_capture_on_commit_callbacks() as announced:
        answer = send(client, TEXT, "?dry_run=true")
    assert announced == []
    assert answer.json()["dry_run"] is True
    assert answer.json()["revision"] == before
    assert len(answer.json()["changes"]) == 3
    assert not Route.objects.exists()


def test_a_bad_entry_is_named_by_line_and_pointer() -> None:
    answer = send(api(), TEXT.replace("service: orders", "service: 7"))
    assert code(answer) == (422, "validation_failed")
    assert answer.json()["detail"] == "line 5, /routes/0/service: Not a valid string."
    assert answer.json()["errors"] == [{"pointer": "/routes/0/service", "detail": "Not a valid string.", "line": 5}]
    assert not Revision.objects.filter(number__gt=1).exists()


def test_json_has_pointers_only() -> None:
    answer = api().post("/v1/config", {"routes": [{"name": "orders", "service": 7}]})
    assert answer.json()["errors"] == [{"pointer": "/routes/0/service", "detail": "Not a valid string."}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: *b", (400, "malformed_request")),
        ("a: [", (400, "malformed_request")),
        ("# nothing", (422, "validation_failed")),
        ("health_checks: [{service_name: a}, {service_name: a, path: /health}]", (422, "validation_failed")),
        ("[]", (422, "validation_failed")),
        ("routes: 5", (422, "validation_failed")),
        ("routes: [[]]", (422, "validation_failed")),
        ("routes: [{name: {a: b}, service: x}]", (422, "validation_failed")),
        ("routes: [{name: a, targets: [5]}]", (422, "validation_failed")),
        ("routes: [{name: a, targets: [{service: [x]}]}]", (422, "validation_failed")),
        ("health_checks: [{service_name: a, check_type: [tcp], path: {}}]", (422, "validation_failed")),
        ("health_checks: [{service_name: a, check_type: tcp, path: [1]}]", (422, "validation_failed")),
        ("upstreams: [{service: [a]}]", (422, "validation_failed")),
        ("a: " + "x" * 6_000_000, (413, "payload_too_large")),
    ],
)
def test_a_document_of_another_shape_is_refused(text: str, expected: tuple[int, str]) -> None:
    assert code(send(api(), text)) == expected


@pytest.mark.parametrize("query", ["?dryrun=true", "?dry_run=yes", "?prune"])
def test_a_misspelt_option_writes_nothing(query: str) -> None:
    assert code(send(api(), TEXT, query)) == (422, "validation_failed")
    assert not Route.objects.exists()


def test_it_takes_scope_admin_and_stays_in_the_tenant() -> None:
    writer = api("acme", ("gateway:read", "gateway:write", "registry:read"))
    assert code(writer.get("/v1/config")) == (403, "scope_missing")
    assert code(send(writer, TEXT)) == (403, "scope_missing")
    send(api(), TEXT)
    theirs = api("acme", ("admin",))
    assert theirs.get("/v1/config").json()["routes"] == []
    send(theirs, "{routes: [], services: [], rate_limit_policies: []}", "?prune=true")
    assert Route.objects.filter(tenant__name="default").count() == 1


def test_what_is_still_used_elsewhere_is_a_conflict() -> None:
    client = api()
    send(client, TEXT)
    assert code(send(client, "rate_limit_policies: []", "?prune=1")) == (409, "conflict")
    assert json.loads(client.get("/v1/config").content)["rate_limit_policies"]
