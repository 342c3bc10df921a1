"""The whole platform as a user starts it: one command in a directory of its own, on free ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anumate.stack.preflight import free_port
from tests import environment
from tests.conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]
UP = "Ctrl-C stops everything"
START = (sys.executable, "-m", "anumate_integration_service.cli.main", "start")


class Running:
    """A start, its output so far, and the processes it has brought up."""

    def __init__(self, home: Path, *flags: str, environ: dict[str, str] | None = None) -> None:
        self.home = home
        self.lines: list[str] = []
        # Nothing of the test run's own settings: a user has none of them. Its code, though, is what is tested.
        self.environ = {**environment.BARE, "HOME": str(home), "PYTHONPATH": str(ROOT)} | (environ or {})
        self.process = subprocess.Popen(
            [*START, *flags],
            cwd=home,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_until_up(self, seconds: float = 40.0) -> None:
        wait_until(lambda: UP in self.output or self.process.poll() is not None, seconds=seconds, what="the block")
        assert UP in self.output, self.output

    def curl(self) -> subprocess.CompletedProcess[str]:
        """Paste the printed line into a shell."""
        line = next(line for line in self.lines if "curl " in line)
        return subprocess.run(  # noqa: S602  (what a shell makes of the line is what counts)
            line[line.index("curl ") :],
            shell=True,
            cwd=self.home,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def interrupt(self) -> float:
        """Ctrl-C; how many seconds it took to end."""
        begun = time.monotonic()
        os.kill(self.process.pid, signal.SIGINT)
        self.process.wait(20)
        self.join()
        return time.monotonic() - begun

    def pids(self, pattern: str = "") -> list[int]:
        """Its processes whose command line matches, oldest first."""
        found = [pid for pid, command in processes_in(self.home).items() if re.search(pattern, command)]
        return sorted(found, key=_started)  # not by number: those begin anew at some point

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def join(self) -> None:
        """Wait until everything that it said has been read."""
        self.process.wait()
        self._reader.join(5)


@contextmanager
def running(home: Path, *flags: str, environ: dict[str, str] | None = None) -> Iterator[Running]:
    platform = Running(home, *flags, environ=environ)
    try:
        yield platform
    finally:
        if platform.process.poll() is None:
            platform.process.kill()
        for pid in processes_in(home):
            os.kill(pid, signal.SIGKILL)
        platform.join()


def free_ports() -> tuple[str, ...]:
    return "--port", str(free_port()), "--gateway-port", str(free_port())


def processes_in(home: Path) -> dict[int, str]:
    """Processes whose working directory is in `home`, with their command lines: whatever a start there has left."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").resolve(strict=True).is_relative_to(home):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked, or is somebody else's
    return found


def _started(pid: int) -> tuple[int, int]:
    """When a process was started, in ticks since the machine was (proc(5)); one that has just ended comes last."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return sys.maxsize, pid
    return int(after_name.split()[19]), pid
