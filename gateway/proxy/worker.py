"""The gateway under gunicorn.

gunicorn -k gateway.proxy.worker.GatewayWorker anumate_integration_service.app:gateway
"""

from __future__ import annotations

from uvicorn_worker import UvicornWorker

from gateway.proxy.config import SERVER_OPTIONS


class GatewayWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker with the gateway's options."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, **SERVER_OPTIONS}
