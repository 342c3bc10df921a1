"""Registers a Django project while it is served, under WSGI or ASGI.

    INSTALLED_APPS = [..., "anumate_integration_service.integrations.django.DiscoveryConfig"]
    ANUMATE_DISCOVERY = {"service_name": "orders", "http_port": 8000}

    from anumate_integration_service.integrations.django import discovery
    discovery().instances("mail")

`ANUMATE_DISCOVERY` takes what `create_discovery_client` takes, `drain` (seconds between leaving and the end, on SIGTERM
and SIGINT), and `enabled` (True or False) where the guess below is wrong. A management command, a test run or a task
worker registers nothing.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings

from anumate_integration_service.signals import LeaveFirst, in_thread
from anumate_integration_service.sync import SyncDiscoveryClient

_SERVERS: Final = frozenset(
    {"daphne", "granian", "gunicorn", "hypercorn", "mod_wsgi-express", "uvicorn", "uwsgi", "waitress-serve"}
)
_OURS: Final = frozenset({"enabled", "drain"})
_HANDLERS: Final = frozenset({"django.core.asgi", "django.core.wsgi"})


class DiscoveryConfig(AppConfig):
    """Begins to register when the project is loaded to be served; see the module."""

    name = "anumate_integration_service.integrations"
    label = "anumate_discovery"

    def ready(self) -> None:
        enabled = _options().get("enabled")
        if is_served(sys.argv, os.environ, set(_callers())) if enabled is None else enabled:
            begin()


@cache
def discovery() -> SyncDiscoveryClient:
    """The project's client. Where the project is not served, it registers nothing but answers `get_services`."""
    return SyncDiscoveryClient(**{name: value for name, value in _options().items() if name not in _OURS})


def begin() -> None:
    """Register once the port takes connections; with `required`, at once, so that a failure ends the process.

    Raises:
        RegistryUnavailable, RegistrationRefused: the client is `required` and could not register.
    """
    client = discovery()
    _at_exit(client.stop)
    if threading.current_thread() is threading.main_thread():
        drain = float(_options().get("drain", 0.0))
        LeaveFirst(in_thread(lambda: client.stop(drain)), (signal.SIGTERM, signal.SIGINT))
    if _options().get("required"):
        client.start()
    else:
        threading.Thread(target=client.start_when_listening, name="anumate start", daemon=True).start()


def is_served(argv: Sequence[str], environ: Mapping[str, str], callers: set[str]) -> bool:
    """Whether this process serves the project, by its command line and the modules that are loading it.

    `runserver` with autoreload loads a project twice; only the inner process, which RUN_MAIN marks, serves it.
    """
    path, command = Path(argv[0] if argv else ""), argv[1] if len(argv) > 1 else ""
    program = path.parent.name if path.name == "__main__.py" else path.name
    if program in {"manage.py", "django-admin", "django"}:
        return command == "runserver" and ("--noreload" in argv or environ.get("RUN_MAIN") == "true")
    return program in _SERVERS or not _HANDLERS.isdisjoint(callers)


def _at_exit(leave: Callable[[], None]) -> None:
    """Before the thread pools close, which leaving may need to look up the registry's address; `atexit` comes after."""
    import concurrent.futures.thread  # noqa: F401  (its own farewell must be registered before ours, to come after)

    getattr(threading, "_register_atexit", atexit.register)(leave)


def _callers() -> Iterator[str]:
    """The modules in which something waits for us to be loaded."""
    frame = sys._getframe()
    while frame is not None:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back  # type: ignore[assignment]


def _options() -> dict[str, Any]:
    return dict(getattr(settings, "ANUMATE_DISCOVERY", {}))
