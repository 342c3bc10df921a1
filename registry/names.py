"""Names that people and programs may give: DNS labels, and a few words that are taken."""

from __future__ import annotations

import re
from typing import Final

LABEL: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""A DNS label (RFC 1123): 1 to 63 lower-case letters, digits and inner hyphens."""
INSTANCE_ID: Final = r"^[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$"
WORD: Final = r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$"
"""Capabilities and the names of endpoints."""
TAG: Final = r"^[A-Za-z0-9]([A-Za-z0-9_.:/=-]{0,62}[A-Za-z0-9])?$"
ZONE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"

RESERVED_SERVICES: Final = frozenset({"register", "watch"})
RESERVED_INSTANCES: Final = frozenset({"state", "why", "history", "heartbeat"})

_label = re.compile(LABEL)


def is_label(text: str) -> bool:
    return _label.fullmatch(text) is not None
