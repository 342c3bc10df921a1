"""What can be known before anything is started. Each check answers quietly or raises `StartError`, one sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from pathlib import Path

from anumate.lib.redis import UNAVAILABLE, connect
from anumate.stack.process import StartError


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
    shown = re.sub(r"(?<=:)[^:@/]+(?=@)", "***", url)
    try:
        client = connect(url)
        try:
            client.ping()
        finally:
            client.close()
    except UNAVAILABLE as error:
        raise StartError(f"Redis at {shown} cannot be reached: {error} (REDIS_URL).") from None


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
