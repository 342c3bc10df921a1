"""Rows of services."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from registry.models import Service, Tenant
from registry.names import RESERVED_SERVICES, is_label
from registry.services.changes import Actor, change


def check_service_name(name: str) -> str:
    """`name`, when a service may have it.

    Raises:
        ValidationError: with the sentence why not.
    """
    if not is_label(name):
        raise ValidationError("Use 1 to 63 lower-case letters, digits and inner hyphens (a DNS label).")
    if name in RESERVED_SERVICES:
        raise ValidationError(f"{name} is a reserved word.")
    return name


def ensure_service(actor: Actor, tenant: Tenant, name: str) -> Service:
    """The service of that name; made when it is not there yet, so that a route may be written before its service."""
    if service := Service.objects.filter(tenant=tenant, name=name).first():
        return service
    service = Service(tenant=tenant, name=check_service_name(name))
    with change(actor, "created", service):
        service.save()
    return service
