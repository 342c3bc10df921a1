"""What gunicorn is given: `anumate_integration_service.app:app` (port 8090) and `:gateway` (port 8080).

Each is made when it is first asked for, so that a gateway process loads nothing of the control plane.
"""

from __future__ import annotations

from typing import Any


def _app() -> Any:
    from anumate.asgi import application

    return application


def _gateway() -> Any:
    from gateway.proxy.app import create_app
    from gateway.proxy.config import Config

    return create_app(Config.from_env())


_MADE_BY = {"app": _app, "gateway": _gateway}


def __getattr__(name: str) -> Any:
    if name not in _MADE_BY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _MADE_BY[name]()
    return made
