"""One line of JSON for a request, as often as its route says: what an operator greps, and never a secret.

The query is left out, for keys and tokens travel there.
"""

from __future__ import annotations

import json
import logging

from gateway.proxy.exchange import Exchange
from gateway.proxy.policies import AccessLog

logger = logging.getLogger("anumate.access")


def note(policy: AccessLog, x: Exchange, seconds: float, address: str, draw: float) -> None:
    """Write the line, if chance wants it; `draw` is a number from 0 to 1."""
    share = policy.failures if x.status >= 500 else policy.sample
    if draw >= share:
        return
    line = {
        "request_id": x.request_id.decode(),
        "trace_id": x.traceparent[3:35].decode(),
        "tenant": x.tenant,
        "route": x.binding.route.name if x.binding else "",
        "instance": x.instance,
        "client": address,
        "consumer": x.client.id if x.client else "",
        "method": x.method,
        "host": x.host,
        "path": x.path.matched,
        "status": x.status,
        "seconds": round(seconds, 6),
    }
    logger.info("%s", json.dumps(line, separators=(",", ":")))
