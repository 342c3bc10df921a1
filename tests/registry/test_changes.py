from __future__ import annotations

import pytest

from registry.models import AuditEntry, Revision, Tenant
from registry.services.changes import SYSTEM, change, one_step
from registry.signals import configuration_changed

pytestmark = pytest.mark.django_db


def test_a_change_leaves_an_audit_row_with_before_and_after_and_raises_the_revision() -> None:
    tenant = Tenant(name="acme", title="Acme")
    with change(SYSTEM, "created", tenant):
        tenant.save()
    tenant.title = "Acme Inc."
    with change(SYSTEM, "changed", tenant, reason="they asked"):
        tenant.save()

    entry = AuditEntry.objects.first()
    assert entry is not None
    assert (entry.before["title"], entry.after["title"], entry.reason) == ("Acme", "Acme Inc.", "they asked")
    assert Revision.objects.get().number == 2


def test_a_save_that_changes_nothing_is_no_change() -> None:
    tenant = Tenant.objects.create(name="acme")
    with change(SYSTEM, "changed", tenant):
        tenant.save()
    assert not AuditEntry.objects.exists()
    assert not Revision.objects.exists()


def test_a_failed_change_leaves_nothing_behind() -> None:
    tenant = Tenant(name="acme")

    def fail_after_saving() -> None:
        with change(SYSTEM, "created", tenant):
            tenant.save()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_saving()
    assert not Tenant.objects.exists()
    assert not AuditEntry.objects.exists()


def test_many_changes_in_one_step_raise_the_revision_once_and_keep_an_audit_row_each() -> None:
    with one_step():
        for name in ("acme", "other"):
            tenant = Tenant(name=name)
            with change(SYSTEM, "created", tenant):
                tenant.save()
        assert not Revision.objects.exists()
    assert Revision.objects.get().number == 1
    assert AuditEntry.objects.count() == 2
    with one_step():
        pass
    assert Revision.objects.get().number == 1


def test_listeners_hear_of_a_change_after_the_commit(django_capture_on_commit_callbacks) -> None:
    heard: list[int] = []

    def listen(revision: int, **rest: object) -> None:
        heard.append(revision)

    configuration_changed.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            tenant = Tenant(name="acme")
            with change(SYSTEM, "created", tenant):
                tenant.save()
            assert heard == []
        assert heard == [1]
    finally:
        configuration_changed.disconnect(listen)
