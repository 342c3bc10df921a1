"""What a service can do, as words that others look for."""

from __future__ import annotations

import re
from enum import StrEnum

_WORD = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")


class ServiceCapability(StrEnum):
    """The usual capabilities. Any other lower-case word is one too: `ServiceCapability("invoices")`."""

    HTTP_API = "http_api"
    GRPC_API = "grpc_api"
    WEBSOCKET = "websocket"
    AUTHENTICATION = "authentication"
    AUTHORIZATION = "authorization"
    STORAGE = "storage"
    CACHE = "cache"
    MESSAGING = "messaging"
    SEARCH = "search"
    SCHEDULING = "scheduling"
    NOTIFICATION = "notification"
    METRICS = "metrics"

    @classmethod
    def _missing_(cls, value: object) -> ServiceCapability | None:
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            return None
        member = str.__new__(cls, value)
        member._name_ = re.sub(r"[^A-Z0-9]", "_", value.upper())
        member._value_ = value
        return member
