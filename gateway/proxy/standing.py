"""What a worker says of itself: whether it is ready, what it serves and since when, and how much is under way.

Told without a key, so it names nothing of what is configured.
"""

from __future__ import annotations

from typing import Any

from gateway.proxy.admission import Admission
from gateway.proxy.connections import Connections
from gateway.proxy.live import Live
from registry.live.node import Node


class Standing:
    def __init__(self, worker: str, node: Node, live: Live, admission: Admission, connections: Connections) -> None:
        self._worker = worker
        self._node = node
        self._live = live
        self._admission = admission
        self._connections = connections

    @property
    def draining(self) -> bool:
        """It ends: no new connections, and each that is open gets one last answer."""
        return self._node.leaving

    @property
    def ready(self) -> bool:
        return self._live.loaded and not self.draining

    @property
    def from_disk(self) -> bool:
        """Whether it serves what an earlier process kept, having heard nothing of Redis itself."""
        return self._live.loaded and not self._node.sections_synced

    def readiness(self) -> dict[str, Any]:
        """The body of /-/readyz."""
        catalog = self._node.catalog
        return {
            "status": "draining" if self.draining else "ready" if self._live.loaded else "waiting for a routing table",
            "source": "disk" if self.from_disk else "redis",
            "table_revision": self._live.current.revision,
            "keys": self._node.keys.ready,
            "catalogue_index": catalog.index,
            "redis": "connected" if catalog.stale_since is None else "away",
            "stale_since": catalog.stale_since,
        }

    def metrics(self, wall: float) -> bytes:
        """The body of /-/metrics, in the text format of Prometheus. Each worker answers for itself."""
        stale_since = self._node.catalog.stale_since
        gauges = (
            ("ready", "Whether the worker takes requests.", self.ready),
            ("draining", "Whether the worker is ending.", self.draining),
            ("from_snapshot", "Whether it serves what was kept on disk, for Redis was never there.", self.from_disk),
            ("redis_away_seconds", "How long Redis has been away, 0 when it is there.", wall - (stale_since or wall)),
            ("table_revision", "Revision of the routing table that is served.", self._live.current.revision),
            ("skipped", "What the worker cannot serve of the table; its log says why.", len(self._live.skipped)),
            ("requests_in_flight", "Requests under way, WebSockets included.", self._admission.whole.inside),
            ("connections", "Connections of clients that are open.", len(self._connections.open)),
            ("tls_handshakes", "Connections that have yet to agree on TLS.", len(self._connections.knocking)),
        )
        lines: list[str] = []
        for name, meaning, value in gauges:
            metric = f"anumate_gateway_worker_{name}"
            lines += (f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge")
            lines.append(f'{metric}{{worker="{self._worker}"}} {float(value):g}')
        return "\n".join([*lines, ""]).encode()
