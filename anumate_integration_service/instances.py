"""What the registry tells of an instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one protocol of an instance listens."""

    protocol: str
    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServiceInstance:
    """One process of a service, as the registry last told of it."""

    name: str
    instance_id: str
    version: str = ""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    zone: str = ""
    weight: int = 100
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: str = "unknown"
    state: str = "enabled"

    @property
    def url(self) -> str:
        """Where to send HTTP requests; its first endpoint when it has none for HTTP, empty when it has none at all."""
        endpoints = list(self.endpoints.values())
        web = [endpoint for endpoint in endpoints if endpoint.protocol in {"http", "https"}]
        return next((endpoint.url for endpoint in web + endpoints), "")

    @property
    def eligible(self) -> bool:
        """Whether it may get traffic. Unknown health may; unhealthy, draining and maintenance may not."""
        return self.status != "unhealthy" and self.state == "enabled"

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> ServiceInstance:
        """Fields that a newer registry adds are ignored."""
        return cls(
            name=item["name"],
            instance_id=item["instance_id"],
            version=item.get("version", ""),
            endpoints={
                name: Endpoint(each["protocol"], each["host"], each["port"])
                for name, each in item.get("endpoints", {}).items()
            },
            capabilities=tuple(item.get("capabilities", ())),
            tags=tuple(item.get("tags", ())),
            zone=item.get("zone", ""),
            weight=item.get("weight", 100),
            metadata=dict(item.get("metadata", {})),
            status=item.get("status", "unknown"),
            state=item.get("state", "enabled"),
        )
