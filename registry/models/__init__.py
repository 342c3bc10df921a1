"""What exists and who may: the registry's rows."""

from registry.models.access import ApiKey, Member, Tenant, TenantHost
from registry.models.audit import AuditEntry, Revision
from registry.models.catalogue import Instance, OperatorState, Service, Zone
from registry.models.history import InstanceEvent

__all__ = [
    "ApiKey",
    "AuditEntry",
    "Instance",
    "InstanceEvent",
    "Member",
    "OperatorState",
    "Revision",
    "Service",
    "Tenant",
    "TenantHost",
    "Zone",
]
