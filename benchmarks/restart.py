"""How long a gateway takes from its start to its first answer when neither Redis nor the database is there."""

from __future__ import annotations

import statistics
import time

from benchmarks.gateway import answers, configure
from benchmarks.ours import PEPPER
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port, rows, wait_until

ROUNDS = 5
ROUTES = 1000


def main() -> None:
    with Stand() as stand:
        ports, gateway = [free_port(), free_port()], free_port()
        key = configure(stand, ports, ROUTES)
        stand.start(PYTHON, "-m", "benchmarks.upstream", *map(str, ports), core=OTHER, port=ports[1])
        url = f"http://127.0.0.1:{gateway}/orders/7"

        def start(**environ: str) -> float:
            """Seconds to the first answer of a worker that then ends, and keeps what it knows."""
            began = time.monotonic()
            command = (PYTHON, "-m", "benchmarks.worker", str(gateway))
            process = stand.start(*command, core=MEASURED, port=gateway, API_KEY_PEPPER=PEPPER, **environ)
            wait_until(lambda: answers(url, key), "the gateway to answer")
            seconds = time.monotonic() - began
            process.terminate()
            process.wait(10)
            return seconds

        usual = [start() for _ in range(ROUNDS)]
        cut_off = [start(REDIS_URL="redis://127.0.0.1:1", DATABASE_URL="") for _ in range(ROUNDS)]
    lines = [
        ("with Redis", f"{statistics.median(usual):.2f}", f"{max(usual):.2f}"),
        ("with what was kept on disk", f"{statistics.median(cut_off):.2f}", f"{max(cut_off):.2f}"),
    ]
    rows(f"Start to first answer, {ROUTES:,} routes, {ROUNDS} times", ("", "median s", "longest s"), lines)
