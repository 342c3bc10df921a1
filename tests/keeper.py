"""Ends what a test run has started and could not end itself, because it was killed: a worker that lives on would talk
to the next run's Valkey, which gets the same port.

It is told the run's home, and reads its standard input, which ends when the run does. Where there is no /proc, it does
nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def started_by(home: str) -> list[int]:
    """The processes that have the run's home in their environment, as all do that it starts, and theirs; or that work
    in it, as Valkey, which writes its title over its environment.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            works_in = os.readlink(process / "cwd")
            if works_in.startswith(home) or home.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # somebody else's, or gone
    return found


def main(home: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    while others := [pid for pid in started_by(home) if pid != os.getpid()]:
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
