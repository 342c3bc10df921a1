"""Becomes another program that ends with its parent: `python -I -S leash.py PARENT PROGRAM ARGUMENTS…`

The supervisor may be killed without a chance to stop what it started. Linux then sends SIGTERM to whoever asked for it
with PR_SET_PDEATHSIG; the wish survives `exec`. A program of its own, because Python code between fork and exec is not
safe beside threads.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  (no shell is the point)


if __name__ == "__main__":
    main()
