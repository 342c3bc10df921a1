"""What a service may say of itself, and how it becomes what we keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from registry.live.addresses import refusal
from registry.live.bodies import Body, Fault, invalid
from registry.live.instances import Document, Endpoint, Fact, Health, Key
from registry.names import INSTANCE_ID, LABEL, RESERVED_INSTANCES, RESERVED_SERVICES, TAG, WORD

MAX_BODY: Final = 64 * 1024
# Seconds. A shorter lease lapses in any pause of a network or a garbage collector; a longer one tells nothing.
LEAST_TTL: Final = 5
MOST_TTL: Final = 86_400


# Python's `$` also matches before a line feed at the end; followed by this it does not.
NO_LINE_FEED: Final = r"(?!\n)"


def _whole(pattern: str) -> str:
    return pattern + NO_LINE_FEED


_SERVICE = "Use 1 to 63 lower-case letters, digits and inner hyphens (a DNS label)."
_ID = "Use 1 to 128 letters, digits and inner . _ : -"
_WORD = "Use 1 to 63 lower-case letters, digits and inner . _ -"
_TAG = "Use 1 to 64 letters, digits and inner . _ : / = -"
_VERSION = "Use at most 64 letters, digits and . _ + ! -, starting with a letter or digit."
_ZONE = "Use at most 63 letters, digits and . _ -, starting with a letter or digit."
_PATH = "Use a path that starts with /, in ASCII without blanks."

Label = Annotated[str, Meta(pattern=_whole(LABEL), description=_SERVICE)]
InstanceId = Annotated[str, Meta(pattern=_whole(INSTANCE_ID), description=_ID)]
Word = Annotated[str, Meta(pattern=_whole(WORD), description=_WORD)]
Tag = Annotated[str, Meta(pattern=_whole(TAG), description=_TAG)]
Version = Annotated[str, Meta(pattern=_whole(r"^([A-Za-z0-9][A-Za-z0-9._+!-]{0,63})?$"), description=_VERSION)]
Zone = Annotated[str, Meta(pattern=_whole(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"), description=_ZONE)]
# Neither databases nor terminals like control characters.
Text = Annotated[str, Meta(pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$", max_length=512)]


class EndpointBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one protocol of an instance listens."""

    protocol: Literal["http", "https", "grpc", "tcp"]
    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]

    def endpoint(self) -> Endpoint:
        return Endpoint(self.protocol, _without_brackets(self.host), self.port)


class HealthCheckBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the instance wants to be asked whether it is well. `endpoint` is a name; empty: the first that fits.

    `timeout` must be shorter than `interval`; without one it is 10 s, or half the interval where that is shorter.
    """

    check_type: Literal["http", "tcp"] = "http"
    service_name: str = ""
    instance_id: str = ""
    endpoint: str = ""
    path: Annotated[str, Meta(pattern=_whole(r"^/[!-~]{0,999}$"), description=_PATH)] = "/health"
    interval: Annotated[float, Meta(ge=1, le=86_400)] = 30.0
    timeout: Annotated[float, Meta(ge=0.1, le=30)] | None = None
    failure_threshold: Annotated[int, Meta(ge=1, le=100)] = 3
    success_threshold: Annotated[int, Meta(ge=1, le=100)] = 2


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An instance of a service, as it registers. Without `instance_id`, the same service at the same endpoints is the
    same instance."""

    name: Label
    endpoints: Annotated[dict[Word, EndpointBody], Meta(min_length=1, max_length=16)]
    version: Version = ""
    capabilities: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    tags: Annotated[tuple[Tag, ...], Meta(max_length=64)] = ()
    instance_id: InstanceId | None = None
    zone: Zone = ""
    weight: Annotated[int, Meta(ge=0, le=65_535)] = 100
    metadata: Annotated[dict[Tag, Text], Meta(max_length=64)] = {}
    lease_ttl: Annotated[int, Meta(ge=LEAST_TTL, le=MOST_TTL)] = 30
    health_check: HealthCheckBody | None = None

    def key(self, tenant: str) -> Key:
        return Key(tenant, self.name, self.instance_id or self._id_of_endpoints())

    def document(self) -> Document:
        return Document(
            self.version,
            {name: body.endpoint() for name, body in self.endpoints.items()},
            tuple(dict.fromkeys(self.capabilities)),
            tuple(dict.fromkeys(self.tags)),
            self.zone,
            self.weight,
            # In one order, so that equal registrations are equal bytes. Endpoints keep theirs: the first one counts.
            dict(sorted(self.metadata.items())),
            self.lease_ttl,
        )

    def check(self) -> Fact | None:
        """The health check it asks for, as the fact that health reads."""
        if self.health_check is None:
            return None
        wish = msgspec.structs.replace(self.health_check, service_name="", instance_id="")
        return Fact(msgspec.json.encode(wish).decode(), source="registration")

    def faults(self) -> Iterator[Fault]:
        """What the shape alone does not say."""
        if self.name in RESERVED_SERVICES:
            yield {"pointer": "/name", "detail": f"{self.name} is a reserved word."}
        if self.instance_id in RESERVED_INSTANCES:
            yield {"pointer": "/instance_id", "detail": f"{self.instance_id} is a reserved word."}
        for name, body in self.endpoints.items():
            if sentence := refusal(_without_brackets(body.host)):
                yield {"pointer": f"/endpoints/{name}/host", "detail": sentence}
        if self.health_check is not None:
            yield from self._check_faults(self.health_check)

    def _check_faults(self, check: HealthCheckBody) -> Iterator[Fault]:
        for field, mine in (("service_name", self.name), ("instance_id", self.instance_id)):
            if getattr(check, field) not in {"", mine}:
                yield {"pointer": f"/health_check/{field}", "detail": "This is not what is being registered."}
        if check.endpoint and check.endpoint not in self.endpoints:
            yield {"pointer": "/health_check/endpoint", "detail": "There is no endpoint by this name."}
        if check.timeout is not None and check.timeout >= check.interval:
            detail = f"Use less than the interval, which is {check.interval:g} s."
            yield {"pointer": "/health_check/timeout", "detail": detail}

    def _id_of_endpoints(self) -> str:
        digest = hashlib.sha256(msgspec.json.encode(self.endpoints, order="deterministic")).hexdigest()
        return f"{self.name}-{digest[:12]}"


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an instance says of its own health; nothing at all leaves what it said last."""

    status: Literal["healthy", "degraded", "unhealthy"] | None = None
    output: Annotated[str, Meta(max_length=4000)] = ""

    def fact(self, since: float) -> Fact | None:
        if self.status is None:
            return None
        said = "".join(character for character in self.output if character >= " " or character in "\n\t").strip()
        return Fact(self.status, said or _SAID[self.status], since, "heartbeat")


class Registered(msgspec.Struct, frozen=True):
    """The answer to a registration: send a heartbeat each `heartbeat_interval` seconds, or the lease lapses."""

    name: str
    instance_id: str
    lease_ttl: int
    heartbeat_interval: float
    index: str
    registered_at: datetime
    expires_at: datetime


class Renewed(msgspec.Struct, frozen=True):
    """The answer to a heartbeat."""

    instance_id: str
    lease_ttl: int
    index: str
    expires_at: datetime


_SAID: Final[dict[Health, str]] = {
    "healthy": "It says that it is healthy.",
    "degraded": "It says that it is degraded.",
    "unhealthy": "It says that it is unhealthy.",
}

_registration = Body(Registration)
_heartbeat = Body(Heartbeat)


def decode_registration(data: bytes) -> Registration:
    """Raises Problem, with a pointer to every value at fault."""
    registration = _registration.decode(data)
    if errors := list(registration.faults()):
        raise invalid(errors)
    return registration


def decode_heartbeat(data: bytes) -> Heartbeat:
    """Raises Problem. No body is a heartbeat that says nothing."""
    return _heartbeat.decode(data) if data else Heartbeat()


def _without_brackets(host: str) -> str:
    return host[1:-1].lower() if host.startswith("[") and host.endswith("]") else host.lower()
