"""What port 8090 serves, on one screen: health for orchestrators, the lane for machines, Django and websockets."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "anumate.settings")

from django.core.asgi import get_asgi_application

django_app = get_asgi_application()  # before anything that imports models

from django.conf import settings
from registry.lane import Lane
from registry.live.node import Node, set_current

from anumate.faces.routing import websocket
from anumate.readiness import PATHS, Readiness


class ControlPlane:
    """The ASGI application. Its node lives from the lifespan's start to its end, in the server's own loop."""

    def __init__(self) -> None:
        self.node: Node | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["type"]:
            case "lifespan":
                await self.lifespan(receive, send)
            case "websocket":
                await websocket(scope, receive, send)
            case "http" if scope["path"] in PATHS and scope["method"] in {"GET", "HEAD"}:
                await self.readiness(scope, send)
            case "http":
                await self.lane(scope, receive, send)

    async def lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        self.node = Node(settings.ENV, settings.API_KEY_PEPPER, cache_dir=settings.HOME / "cache" / "web")
        self.readiness = Readiness(self.node)
        self.lane = Lane(django_app, self.node)
        set_current(self.node)
        await self.node.start()

    async def stop(self) -> None:
        set_current(None)
        if self.node is not None:
            await self.node.stop()


application = ControlPlane()
