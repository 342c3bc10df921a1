"""What the parsers share: an instance found elsewhere, and where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from anumate.lib.problem import Problem
from registry.live.registration import Registration, decode_registration

LEASE_TTL: Final = 86_400
"""Seconds: nobody sends heartbeats for what was imported; by then the services should register themselves."""
TAG: Final = "imported"


class BadEntry(ValueError):
    """The document cannot be imported; `pointer` (RFC 6901) says where."""

    def __init__(self, pointer: str, sentence: str) -> None:
        super().__init__(f"{pointer or '/'}: {sentence}")


@dataclass(frozen=True)
class Found:
    """An instance as it stood in another registry. `maintenance` is why an operator took it out of traffic there."""

    registration: Registration
    maintenance: str = ""


def found(pointer: str, body: Mapping[str, Any], source: str, maintenance: str = "") -> Found:
    """Check the body as the lane checks a registration.

    Raises:
        BadEntry: it is not one.
    """
    metadata = {name: value if isinstance(value, str) else str(value) for name, value in body["metadata"].items()}
    whole = {
        **body,
        "tags": list(dict.fromkeys([*body["tags"], TAG])),
        "metadata": {**metadata, "source": source},
        "lease_ttl": LEASE_TTL,
    }
    try:
        return Found(decode_registration(msgspec.json.encode(whole)), maintenance)
    except Problem as problem:
        raise BadEntry(pointer, problem.detail) from None


def mapping(value: Any, pointer: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadEntry(pointer, "This is no object.")
    return value


def many(value: Any) -> list[Any]:
    """A list, also where a converter from XML wrote its only member by itself."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def service_name(name: Any, pointer: str) -> str:
    """Our names are DNS labels, theirs often are in capitals or with underscores."""
    if not isinstance(name, str) or not name:
        raise BadEntry(pointer, "The service has no name.")
    return name.lower().replace("_", "-")
