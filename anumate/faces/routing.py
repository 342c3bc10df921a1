"""The websockets of the control plane, for `anumate.asgi`."""

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from anumate.faces.consumers import LiveConsumer
from anumate.faces.origin import our_pages_only

websocket = our_pages_only(
    AuthMiddlewareStack(
        URLRouter(
            [
                path("ws/live/", LiveConsumer.as_asgi()),
                re_path("", WebsocketDenier.as_asgi()),
            ]
        )
    )
)
