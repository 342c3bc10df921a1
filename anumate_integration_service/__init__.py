"""What a service installs to find others and to be found.

    from anumate_integration_service import create_discovery_client, ServiceCapability

Names are loaded when they are first used: the gateway takes only the algorithms from here, and pays for nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anumate_integration_service.capabilities import ServiceCapability
    from anumate_integration_service.changes import Changed, Joined, Left
    from anumate_integration_service.client import DiscoveryClient, create_discovery_client
    from anumate_integration_service.errors import AnumateError, RegistrationRefused, RegistryUnavailable
    from anumate_integration_service.instances import Endpoint, ServiceInstance
    from anumate_integration_service.sync import SyncDiscoveryClient

__all__ = [
    "AnumateError",
    "Changed",
    "DiscoveryClient",
    "Endpoint",
    "Joined",
    "Left",
    "RegistrationRefused",
    "RegistryUnavailable",
    "ServiceCapability",
    "ServiceInstance",
    "SyncDiscoveryClient",
    "create_discovery_client",
]

_HOME = {
    "AnumateError": "errors",
    "Changed": "changes",
    "DiscoveryClient": "client",
    "Endpoint": "instances",
    "Joined": "changes",
    "Left": "changes",
    "RegistrationRefused": "errors",
    "RegistryUnavailable": "errors",
    "ServiceCapability": "capabilities",
    "ServiceInstance": "instances",
    "SyncDiscoveryClient": "sync",
    "create_discovery_client": "client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
