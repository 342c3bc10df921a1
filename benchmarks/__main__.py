"""Every suite, one after the other: `python -m benchmarks`, or `python -m benchmarks <suite> …`.

`--peers` compares with the gateway's peers too; `python -m benchmarks peers --help` tells how to choose among them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from benchmarks import algorithms, compare, edits, gateway, health, live, registry, restart, slow_clients, watchers
from benchmarks.stand import CORES

SUITES: dict[str, Callable[[], None]] = {
    "algorithms": algorithms.main,
    "gateway": gateway.main,
    "edits": edits.main,
    "slow": slow_clients.main,
    "restart": restart.main,
    "registry": registry.main,
    "health": health.main,
    "watch": watchers.main,
    "live": live.main,
    "workloads": lambda: compare.main(() if PEERS in sys.argv else ("--peer", "none")),
}
PEERS = "--peers"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["peers"]:
        compare.main(arguments[1:])
        return
    wanted = [name for name in arguments if name != PEERS] or list(SUITES)
    if unknown := [name for name in wanted if name not in SUITES]:
        sys.exit(f"{', '.join(unknown)}: there are {', '.join(SUITES)} and peers.")
    if len(CORES) < 2:
        print("This machine has one core: load and server share it, so the figures say little.")
    for name in wanted:
        SUITES[name]()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended then, too
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("Interrupted; what was started has been ended.")
