"""What a gateway process is started with."""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from anumate.lib import env as environment
from anumate.lib.state import keep_secret

SERVER_OPTIONS: Final[dict[str, Any]] = {
    "http": "gateway.proxy.serving:GatewayServer",
    "loop": "uvloop",
    "lifespan": "on",
    "access_log": False,
    # Whom to believe about addresses is the gateway's own decision (TRUSTED_PROXIES).
    "proxy_headers": False,
    # Services name themselves and date their answers; two of each would be wrong.
    "server_header": False,
    "date_header": False,
    "timeout_keep_alive": 75,
}
"""How uvicorn has to be run for the gateway; `gateway.proxy.worker` is the same for gunicorn."""


def log_as_configured(level: str) -> None:
    """Log lines to stderr, unless whoever runs us has set logging up."""
    logging.basicConfig(level=level.upper(), format="%(levelname)-7s %(name)s %(message)s")


def _worker_id() -> str:
    return f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`worker` names this process among all that share a Redis; `cache_dir` keeps what a restart in an outage needs."""

    env: environment.Env
    pepper: str
    cache_dir: Path | None = None
    worker: str = field(default_factory=_worker_id)

    @classmethod
    def from_env(cls) -> Config:
        """Raises anumate.lib.env.EnvError."""
        env = environment.read()
        home = env.home.resolve()
        pepper = env.api_key_pepper or keep_secret(home, "api-key-pepper")
        return cls(env=env, pepper=pepper, cache_dir=home / "gateway")
