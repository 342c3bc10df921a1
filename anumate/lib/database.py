"""What `DATABASE_URL` means, for Django and for whoever looks before Django is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


def database(url: str, home: Path) -> dict[str, Any]:
    """Django's entry for `DATABASE_URL`; SQLite in the state directory when it is empty."""
    parts = urlsplit(url)
    if parts.scheme in {"", "sqlite"}:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": parts.path or home / "anumate.sqlite3",
            # WAL lets readers go on beside the one writer; IMMEDIATE takes the write lock at BEGIN, so that a
            # transaction waits its turn instead of failing half-way with "database is locked".
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 10,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA cache_size=-20000;",
            },
        }
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", unquote(parts.hostname or "")),
        "PORT": str(parts.port or ""),
        # Under ASGI a persistent connection would leak with its thread: connections end with their request.
        "CONN_MAX_AGE": 0,
        "OPTIONS": {"connect_timeout": 5, **options},
    }
