"""What a service installs to find others and to be found.

    from anumate_integration_service import create_discovery_client, ServiceCapability

Names are loaded when they are first used: the gateway takes only the algorithms from here, and pays for nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anumate_integration_service.breaker import BreakerPolicy, CircuitBreaker, Outcome
    from anumate_integration_service.capabilities import ServiceCapability
    from anumate_integration_service.changes import Changed, Joined, Left
    from anumate_integration_service.client import DiscoveryClient, create_discovery_client
    from anumate_integration_service.deadlines import deadline
    from anumate_integration_service.errors import (
        AnumateError,
        CircuitOpen,
        NoInstances,
        RegistrationRefused,
        RegistryUnavailable,
    )
    from anumate_integration_service.instances import Endpoint, ServiceInstance
    from anumate_integration_service.retries import RetryBudget, RetryPolicy
    from anumate_integration_service.sync import SyncDiscoveryClient
    from anumate_integration_service.transports import AnumateTransport, SyncAnumateTransport
    from anumate_integration_service.upstreams import Directory

__all__ = [
    "AnumateError",
    "AnumateTransport",
    "BreakerPolicy",
    "Changed",
    "CircuitBreaker",
    "CircuitOpen",
    "Directory",
    "DiscoveryClient",
    "Endpoint",
    "Joined",
    "Left",
    "NoInstances",
    "Outcome",
    "RegistrationRefused",
    "RegistryUnavailable",
    "RetryBudget",
    "RetryPolicy",
    "ServiceCapability",
    "ServiceInstance",
    "SyncAnumateTransport",
    "SyncDiscoveryClient",
    "create_discovery_client",
    "deadline",
]

_HOME = {
    "AnumateError": "errors",
    "AnumateTransport": "transports",
    "BreakerPolicy": "breaker",
    "Changed": "changes",
    "CircuitBreaker": "breaker",
    "CircuitOpen": "errors",
    "Directory": "upstreams",
    "DiscoveryClient": "client",
    "Endpoint": "instances",
    "Joined": "changes",
    "Left": "changes",
    "NoInstances": "errors",
    "Outcome": "breaker",
    "RegistrationRefused": "errors",
    "RegistryUnavailable": "errors",
    "RetryBudget": "retries",
    "RetryPolicy": "retries",
    "ServiceCapability": "capabilities",
    "ServiceInstance": "instances",
    "SyncAnumateTransport": "transports",
    "SyncDiscoveryClient": "sync",
    "create_discovery_client": "client",
    "deadline": "deadlines",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
