"""Export and import as an operator runs them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from gateway.models import RateLimitPolicy, Route
from health.models import HealthCheck
from registry.models import AuditEntry, Revision, Service
from registry.services.catalogue import ensure_service
from registry.services.changes import SYSTEM
from tests.api import api, tenant

pytestmark = pytest.mark.django_db

FILE = """\
version: 1
services:
  - name: orders
    description: "Takes orders: all of them"
  - name: "1e3"
rate_limit_policies:
  - name: gold
    rate: 100.0
    burst: 200
breaker_policies:
  - name: careful
    open_seconds: 5.0
upstreams:
  - service: orders
    load_balancing: p2c
    breaker_policy: careful
health_checks:
  - service_name: orders
    path: /ready
    interval: 5.0
  - service_name: orders
    check_type: tcp
routes:
  - name: orders
    hosts:
      - api.example.com
    path: /orders
    service: orders
    rate_limit_policy: gold
  - name: split
    path: /split
    headers:
      - name: X-A
        value: "no"
    targets:
      - service: orders
        weight: 90
      - service: "1e3"
        weight: 10
        version: ">=2"
"""


@pytest.fixture(autouse=True)
def _default_tenant() -> None:
    tenant()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def run(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def marks() -> tuple[int, int]:
    revision = Revision.objects.first()
    return AuditEntry.objects.count(), revision.number if revision else 0


def refused(path: Path, text: str, *options: str) -> str:
    path.write_text(text, encoding="utf-8")
    before = marks()
    with pytest.raises(CommandError) as error:
        run("import_config", str(path), *options)
    assert marks() == before
    return str(error.value).removeprefix(str(path))


def test_an_import_makes_everything_in_one_revision_with_an_audit_row_each(file: Path) -> None:
    out = run("import_config", str(file))
    assert out.endswith("Added 9 entries.\n")
    assert marks() == (9, 1)
    assert {(entry.actor_kind, entry.actor) for entry in AuditEntry.objects.all()} == {("command", "import_config")}
    assert Route.objects.get(name="split").targets.count() == 2


def test_importing_an_export_changes_nothing(file: Path, tmp_path: Path) -> None:
    run("import_config", str(file))
    before = marks()
    exported = run("export_config")
    again = tmp_path / "again.yaml"
    again.write_text(exported, encoding="utf-8")
    assert run("import_config", str(again), "--prune") == "Changed nothing.\n"
    assert run("import_config", str(file), "--prune") == "Changed nothing.\n"
    assert marks() == before
    assert run("export_config") == exported


def test_an_export_reads_like_what_a_person_would_write(file: Path) -> None:
    run("import_config", str(file))
    exported = run("export_config")
    assert "  - name: orders\n    description: 'Takes orders: all of them'\n" in exported
    assert "  - name: '1e3'\n" in exported
    assert "  - service_name: orders\n    check_type: tcp\n" in exported
    assert "created_at" not in exported


def test_an_export_makes_the_same_in_another_tenant(file: Path, tmp_path: Path) -> None:
    tenant("acme")
    file.write_text(FILE.replace("    hosts:\n      - api.example.com\n", ""), encoding="utf-8")
    run("import_config", str(file))
    exported = tmp_path / "exported.yaml"
    exported.write_text(run("export_config"), encoding="utf-8")
    assert run("import_config", str(exported), "--tenant", "acme").endswith("Added 9 entries.\n")
    assert run("export_config", "--tenant", "acme") == run("export_config")


def test_a_dry_run_says_what_would_change_and_changes_nothing(file: Path) -> None:
    run("import_config", str(file))
    before = marks()
    file.write_text(FILE.replace("burst: 200", "burst: 300").replace("    path: /ready\n", ""), encoding="utf-8")
    assert run("import_config", str(file), "--dry-run", "--prune").splitlines() == [
        "~ rate_limit_policies gold",
        "    - burst: 200",
        "    + burst: 300",
        "+ health_checks orders http",
        '    + service_name: "orders"',
        "    + interval: 5.0",
        "- health_checks orders http /ready",
        '    - service_name: "orders"',
        '    - path: "/ready"',
        "    - interval: 5.0",
        "Would add 1, change 1, remove 1 entry.",
    ]
    assert marks() == before


def test_what_a_file_leaves_out_of_an_entry_goes_back_to_its_default(file: Path) -> None:
    run("import_config", str(file))
    text = FILE.replace('    description: "Takes orders: all of them"\n', "").replace("    load_balancing: p2c\n", "")
    file.write_text(text, encoding="utf-8")
    assert run("import_config", str(file)).splitlines() == [
        "~ services orders",
        '    - description: "Takes orders: all of them"',
        "~ upstreams orders",
        '    - load_balancing: "p2c"',
        "Changed 2 entries.",
    ]


def test_what_a_file_does_not_name_stays_unless_it_is_pruned(file: Path) -> None:
    run("import_config", str(file))
    file.write_text("routes: []\nhealth_checks: []\n", encoding="utf-8")
    assert run("import_config", str(file)) == "Changed nothing.\n"
    assert run("import_config", str(file), "--prune").endswith("Removed 4 entries.\n")
    assert not Route.objects.exists()
    assert not HealthCheck.objects.exists()
    assert RateLimitPolicy.objects.exists()  # the file says nothing of that section


def test_pruning_leaves_services_that_live_or_that_an_operator_spoke_of(file: Path) -> None:
    alive, held, idle = (ensure_service(SYSTEM, tenant(), name) for name in ("alive", "held", "idle"))
    alive.instances.create(instance_id="alive-1")
    Service.objects.filter(pk=held.pk).update(state="maintenance")
    file.write_text("services: []\n", encoding="utf-8")
    run("import_config", str(file), "--prune")
    assert [service.name for service in Service.objects.all()] == ["alive", "held"]
    assert idle.name not in run("export_config")


def test_another_tenants_things_are_neither_seen_nor_touched(file: Path) -> None:
    api("acme").post("/v1/routes", {"name": "theirs", "service": "secret"})
    run("import_config", str(file), "--prune")
    assert Route.objects.filter(name="theirs").exists()
    assert "theirs" not in run("export_config")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("burst: 200", "burst: many", ", line 9, /rate_limit_policies/0/burst: A valid integer is required."),
        ("burst: 200", "brust: 200", ", line 9, /rate_limit_policies/0/brust: There is no such field."),
        ("path: /split", "path: split", ", line 31, /routes/1/path: "),
        ("_policy: gold", "_policy: silver", ", line 29, /routes/0/rate_limit_policy: "),
        ("weight: 90", "weight: -1", ", line 37, /routes/1/targets/0/weight: "),
        ("name: split", "name: orders", ", line 30, /routes/1: orders stands here twice."),
        ('name: "1e3"', "name: 1e3", ", line 5, /services/1/name: Not a valid string."),
        ('- name: "1e3"', "- watch", ", line 5, /services/1: This is a mapping."),
        ('name: "1e3"', "name: watch", ", line 5, /services/1/name: watch is a reserved word."),
        ("version: 1", "version: 2", ", line 1, /version: Only version 1 is known."),
        ("routes:", "ruotes:", ", line 23, /ruotes: There is no such field."),
        ("rate: 100.0", "rate: &a 1.0\n    rate: 2.0", ", line 9: rate stands here twice."),
        ("rate: 100.0", "rate: .inf", ", line 8, /rate_limit_policies/0/rate: A valid number is required."),
        ("api.example.com", "a b", ", line 26, /routes/0/hosts/0: "),
    ],
)
def test_one_bad_entry_rejects_the_whole_file_at_its_line(file: Path, old: str, new: str, said: str) -> None:
    assert refused(file, FILE.replace(old, new, 1)).startswith(said)


def test_pruning_what_is_still_used_is_refused(file: Path) -> None:
    run("import_config", str(file))
    assert refused(file, "rate_limit_policies: []\n", "--prune") == (
        ", line 1, /rate_limit_policies: gold cannot be removed. It is still used by route orders."
    )


def test_a_file_or_a_tenant_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot be read: No such file or directory\."):
        run("import_config", str(tmp_path / "none.yaml"))
    with pytest.raises(CommandError, match="There is no tenant nobody"):
        run("export_config", "--tenant", "nobody")


def test_no_secret_leaves_with_an_export() -> None:
    client = api()
    key = client.post("/v1/api-keys", {"name": "app", "scopes": ["gateway:read"]}).json()
    exported = run("export_config")
    assert key["public_id"] not in exported
    assert "hash" not in exported
