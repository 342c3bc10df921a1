"""One gateway worker with the server options it has everywhere, without gunicorn's arbiter beside it.

`python -m benchmarks.worker <port> [protocol]`: the protocol class or uvicorn's name of one, else ours.
"""

from __future__ import annotations

import sys

import uvicorn

from gateway.proxy.config import SERVER_OPTIONS

if __name__ == "__main__":
    options = {**SERVER_OPTIONS, **({"http": sys.argv[2], "ws": "none"} if sys.argv[2:] else {})}
    uvicorn.run("gateway.proxy.app:create_app", factory=True, port=int(sys.argv[1]), log_level="warning", **options)
