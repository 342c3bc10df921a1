"""What can be known before anything is started. Each check answers quietly or raises `StartError`, one sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from anumate.lib.database import database
from anumate.lib.env import Env, not_accepted, without_password
from anumate.lib.redis import UNAVAILABLE, connect
from anumate.stack.process import StartError
from registry.live import keys

# Of Django, not of the driver.
DJANGO_OPTIONS = frozenset({"assume_role", "isolation_level", "pool", "server_side_binding"})


def home_usable(home: Path) -> None:
    """What `claim_home` will need, without leaving anything in a place that is new."""
    there = home
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise StartError(f"the state directory {home} cannot be written: not a directory (ANUMATE_HOME).")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StartError(f"the state directory {home} cannot be written: permission denied (ANUMATE_HOME).")
    if (home / "lock").exists():
        os.close(claim_home(home))


def key_well_formed(env: Env) -> None:
    if env.bootstrap_api_key and not keys.well_formed(env.bootstrap_api_key):
        raise StartError(not_accepted("ANUMATE_BOOTSTRAP_API_KEY", "", "a well-formed key, anm_…", secret=True))


def claim_home(home: Path) -> int:
    """Make the state directory and hold it for this process; the lock's descriptor, which ends with the process."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"the state directory {home} cannot be written: {_why(error)} (ANUMATE_HOME).") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StartError(f"the state directory {home} is in use by another start (process {holder}).") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def port_free(host: str, port: int, flag: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise StartError(f"the address {host} is not known: {error.strerror} (--host).") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"port {port} on {host} is taken; choose another with {flag}.") from None
        raise StartError(f"port {port} on {host} cannot be opened: {_why(error)} ({flag}).") from None


def redis_reachable(url: str) -> None:
    try:
        client = connect(url)
        try:
            client.ping()
        finally:
            client.close()
    except UNAVAILABLE as error:
        raise StartError(f"Redis at {without_password(url)} cannot be reached: {error} (REDIS_URL).") from None


def database_reachable(url: str, home: Path) -> None:
    entry = database(url, home)
    try:
        if entry["ENGINE"].endswith("sqlite3"):
            _open_sqlite(Path(entry["NAME"]), home)
        else:
            _open_postgresql(entry)
    except (psycopg.Error, sqlite3.Error, OSError) as error:
        # What a driver says may have several lines, one for each address that it tried.
        reason = " ".join((_why(error) if isinstance(error, OSError) else str(error)).split())
        where = f"DATABASE_URL={without_password(url)!r}" if url else f"the database {entry['NAME']}"
        raise StartError(f"{where} cannot be used: {reason}. It takes {_TAKES}.") from None


_TAKES = "a PostgreSQL that answers, or a file of SQLite in a directory that is there"


def _open_postgresql(entry: dict[str, Any]) -> None:
    options = {name: value for name, value in entry["OPTIONS"].items() if name not in DJANGO_OPTIONS}
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname"}
    given = {name: entry[field] for field, name in names.items() if entry[field]}
    psycopg.connect(**given, **options).close()


def _open_sqlite(path: Path, home: Path) -> None:
    if path.exists():
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as connection:
            connection.execute("PRAGMA schema_version")
    elif path.parent != home and not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {path.parent}")
    elif path.parent != home and not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the directory {path.parent} cannot be written")


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
