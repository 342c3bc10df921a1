"""One gateway worker with the server options it has everywhere, without gunicorn's arbiter beside it.

`python -m benchmarks.worker <port>`.
"""

from __future__ import annotations

import sys

import uvicorn

from gateway.proxy.config import SERVER_OPTIONS

if __name__ == "__main__":
    uvicorn.run(
        "gateway.proxy.app:create_app", factory=True, port=int(sys.argv[1]), log_level="warning", **SERVER_OPTIONS
    )
