"""Tenants and the host names they own."""

from __future__ import annotations

from collections.abc import Iterable

from anumate.lib.problem import Problem
from registry.models import Tenant, TenantHost
from registry.services.changes import Actor, change

DEFAULT = "default"


def save_tenant(actor: Actor, tenant: Tenant, *, hosts: Iterable[str] | None = None) -> Tenant:
    """Store a tenant; `hosts` None leaves its host names as they are.

    Raises:
        Problem: conflict, when a host name belongs to another tenant, or `default` would be switched off.
    """
    if tenant.name == DEFAULT and not tenant.active:
        raise Problem("conflict", "Tenant default is needed and cannot be switched off.")
    with change(actor, "created" if tenant.pk is None else "changed", tenant):
        tenant.save()
        if hosts is not None:
            _own(tenant, list(hosts))
    return tenant


def delete_tenant(actor: Actor, tenant: Tenant) -> None:
    """Remove a tenant that nothing depends on any more."""
    if tenant.name == DEFAULT:
        raise Problem("conflict", "Tenant default is needed and cannot be deleted.")
    with change(actor, "deleted", tenant):
        tenant.delete()


def _own(tenant: Tenant, hosts: list[str]) -> None:
    taken = TenantHost.objects.filter(host__in=hosts).exclude(tenant=tenant).values_list("host", flat=True)
    if others := sorted(taken):
        raise Problem("conflict", f"{', '.join(others)} belongs to another tenant.")
    tenant.hosts.exclude(host__in=hosts).delete()
    known = set(tenant.hosts.values_list("host", flat=True))
    TenantHost.objects.bulk_create(TenantHost(tenant=tenant, host=host) for host in hosts if host not in known)
