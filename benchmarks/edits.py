"""What an edit of the routes costs a gateway worker: how soon it serves by it, and what requests wait for meanwhile."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from functools import partial

from benchmarks import load, ours
from benchmarks.gateway import answers, configure
from benchmarks.ours import PEPPER
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port, rows, wait_until

EDITS = 20
PAUSE_SECONDS = 0.5


def main() -> None:
    rows(
        f"An edit, {EDITS} times, while one connection asks again and again",
        ("routes", "in force after, median ms", "longest", "a request's longest wait, median ms", "longest", "without"),
        [_measure(count) for count in (100, 1000, 10_000)],
    )


def _measure(count: int) -> tuple[str, ...]:
    with Stand() as stand:
        ports, gateway = [free_port(), free_port()], free_port()
        key = configure(stand, ports, count)
        stand.start(PYTHON, "-m", "benchmarks.upstream", *map(str, ports), core=OTHER, port=ports[1])
        stand.start(PYTHON, "-m", "benchmarks.worker", str(gateway), core=MEASURED, port=gateway, API_KEY_PEPPER=PEPPER)
        url = f"http://127.0.0.1:{gateway}/orders/7"
        wait_until(lambda: answers(url, key), "the gateway to answer")
        load.run(url, core=OTHER, seconds=1, headers={"X-API-Key": key})
        usual, took, waited = [], [], []

        def edited(number: int) -> bool:
            return answers(f"http://127.0.0.1:{gateway}/edited/{number}", key)

        with _Asking(gateway, key) as asking:
            for number in range(EDITS):
                time.sleep(PAUSE_SECONDS)
                usual.append(asking.longest())
                edit = ours.route(2, "edited", "orders", path=f"/edited/{number}")
                table = [ours.route(1, "orders", "orders"), edit, *ours.others(count - 2)]
                body = ours.table_of(table, revision=number + 2)
                began = time.monotonic()
                ours.publish_body(stand, "routes", body, revision=number + 2)
                wait_until(partial(edited, number), "the edit")
                took.append((time.monotonic() - began) * 1e3)
                time.sleep(PAUSE_SECONDS)  # until what came before is gone, too
                waited.append(asking.longest())
    cells = (statistics.median(took), max(took), statistics.median(waited), max(waited), statistics.median(usual))
    return f"{count:,}", *(f"{cell:.1f}" for cell in cells)


class _Asking:
    """One connection that asks again and again."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._waits: list[float] = []
        self._over = False
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> _Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def longest(self) -> float:
        """In milliseconds, since it was last asked for."""
        waits, self._waits = self._waits, []
        return max(waits) * 1e3

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        while not self._over:
            began = time.monotonic()
            connection.request("GET", "/orders/7", headers={"X-API-Key": self._key})
            connection.getresponse().read()
            self._waits.append(time.monotonic() - began)
