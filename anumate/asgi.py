"""What port 8090 serves, on one screen: health for orchestrators, whatever name they use; then, for the names that are
ours, the lane for machines and Django; websockets."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "anumate.settings")

from django.core.asgi import get_asgi_application

django_app: Any = get_asgi_application()  # before anything that imports models

from django.conf import settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from anumate.faces.routing import websocket
from anumate.front import for_pages_elsewhere, known_hosts_only, whole_bodies
from anumate.lib.cors import Cors
from anumate.readiness import PATHS, Readiness
from registry.lane import Lane
from registry.live.node import Node, set_current

node = Node(settings.ENV, settings.API_KEY_PEPPER, cache_dir=settings.HOME / "cache" / "web")
# What gunicorn and uvicorn call the number of their workers: each has its share of a tenant's requests a second.
workers = os.environ.get("WEB_CONCURRENCY", "")
# The lane bounds its bodies itself.
lane = Lane(
    whole_bodies(django_app, settings.DATA_UPLOAD_MAX_MEMORY_SIZE), node, int(workers) if workers.isdigit() else 1
)
front = known_hosts_only(for_pages_elsewhere(lane, Cors(settings.ENV.cors_origins)), settings.ALLOWED_HOSTS)
readiness = Readiness(node)


async def compose(scope: Any, receive: Any, send: Any) -> None:
    match scope["type"]:
        case "lifespan":
            await lifespan(receive, send)
        case "websocket":
            await websocket(scope, receive, send)
        case "http" if scope["path"] in PATHS and scope["method"] in {"GET", "HEAD"}:
            await readiness(scope, send)
        case "http":
            await front(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    """The node lives as long as the server, in the server's own loop."""
    await receive()
    set_current(node)
    await node.start()
    readiness.serving = True
    await send({"type": "lifespan.startup.complete"})
    await receive()
    readiness.serving = False
    set_current(None)
    await node.stop()
    await send({"type": "lifespan.shutdown.complete"})


# Behind a proxy that ends TLS, who asked and whether by https is what that proxy says; nobody else is believed.
application = ProxyHeadersMiddleware(compose, trusted_hosts=[str(network) for network in settings.ENV.trusted_proxies])
