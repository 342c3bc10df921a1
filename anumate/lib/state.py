"""The state directory: what must outlive a restart of one machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

DEFAULT_STORE = "redis://127.0.0.1:6379"
PASSWORD_FILE = "admin-password"  # noqa: S105 - the name of a file
_SHOWN = "started"


def store_url(home: Path) -> str:
    """Where the store is when nobody says: the embedded one while it runs, so that `manage.py` finds it too."""
    try:
        return (home / "redis-url").read_text(encoding="utf-8").strip()
    except OSError:
        return DEFAULT_STORE


def keep_secret(home: Path, name: str, value: str | None = None) -> str:
    """The secret kept as file `name` (0600); made from `value`, or at random, when it is not there yet.

    Two processes that start together agree: the file is linked into place whole, and the first one wins.
    """
    path = home / name
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write((value or secrets.token_urlsafe(48)) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text(encoding="utf-8").strip()


def was_shown(home: Path) -> bool:
    """Whether a start from this directory has come up before, and so has shown how to sign in."""
    return (home / _SHOWN).exists()


def note_shown(home: Path) -> None:
    (home / _SHOWN).touch(mode=0o600)
