"""Every suite, one after the other: `python -m benchmarks`, or `python -m benchmarks <suite> …`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import algorithms, compare, gateway, health, registry, restart, slow_clients, watchers
from benchmarks.stand import CORES

SUITES: dict[str, Callable[[], None]] = {
    "algorithms": algorithms.main,
    "gateway": gateway.main,
    "slow": slow_clients.main,
    "restart": restart.main,
    "registry": registry.main,
    "health": health.main,
    "watch": watchers.main,
}

if __name__ == "__main__" and sys.argv[1:2] == ["peers"]:
    compare.main(sys.argv[2:])
elif __name__ == "__main__":
    wanted = sys.argv[1:] or list(SUITES)
    if unknown := [name for name in wanted if name not in SUITES]:
        sys.exit(f"{', '.join(unknown)}: there are {', '.join(SUITES)}")
    if len(CORES) < 2:
        print("This machine has one core: load and server share it, so the figures say little.")
    for name in wanted:
        SUITES[name]()
