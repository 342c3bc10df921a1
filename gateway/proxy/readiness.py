"""What `/-/readyz` answers: whether this worker serves, and out of what."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.proxy.exchange import Header
from gateway.proxy.live import Here, Live
from registry.live.node import Node

_JSON: Final = (b"content-type", b"application/json")


class Readiness:
    """Ready is who has a routing table and is not about to stop, whether the store is there or not."""

    def __init__(self, node: Node, live: Live) -> None:
        self._node = node
        self._live = live

    def answer(self, here: Here) -> tuple[int, list[Header], bytes]:
        """Status, fields and body. 503 takes a worker out of a load balancer."""
        status = 200 if self._live.loaded and not self._node.leaving else 503
        return status, [_JSON], msgspec.json.encode(self.facts(here))

    def facts(self, here: Here) -> dict[str, Any]:
        catalog = self._node.catalog
        return {
            "status": self._word(),
            "table_revision": here.revision,
            "keys": self._node.keys.ready,
            "catalogue_index": catalog.index,
            "redis": "connected" if catalog.stale_since is None else "away",
            "stale_since": catalog.stale_since,
        }

    def _word(self) -> str:
        if self._node.leaving:
            return "draining"
        return "ready" if self._live.loaded else "waiting for a routing table"
