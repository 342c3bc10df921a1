"""Whether a proxy does the work that ours does: nobody gains by leaving something out."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Final, NamedTuple

from benchmarks.stand import wait_until


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


def get(port: int, path: str, key: str | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={**({"X-API-Key": key} if key else {}), **headers})
        found = connection.getresponse()
        return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
    finally:
        connection.close()


def ready(port: int, key: str, seconds: float = 15.0) -> None:
    def answers() -> bool:
        try:
            return get(port, "/orders/7", key).status == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_until(answers, f"an answer on port {port}", seconds)


def _refuses(port: int, key: str) -> bool:
    return get(port, "/orders/7").status == 401 and get(port, "/orders/7", key[:-1] + "!").status == 401


def _balances(port: int, key: str) -> bool:
    return {get(port, "/orders/7", key).fields["x-instance"] for _ in range(40)} == {"1", "2"}


def _limits(port: int, key: str) -> bool:
    statuses = [get(port, "/limited/7", key).status for _ in range(6)]
    return statuses[0] == 200 and 429 in statuses


def _forwards(name: str, holds: str = "") -> Callable[[int, str], bool]:
    def check(port: int, key: str) -> bool:
        value: str = json.loads(get(port, "/orders/headers", key).body).get(name, "")
        return bool(value) and holds in value

    return check


CHECKS: Final[dict[str, Callable[[int, str], bool]]] = {
    "401 without a key and with a wrong one": _refuses,
    "200 with a key": lambda port, key: get(port, "/orders/7", key).status == 200,
    "both instances": _balances,
    "429 beyond a small limit": _limits,
    "X-Forwarded-For": _forwards("x-forwarded-for"),  # Envoy names the machine in place of the loopback address
    "X-Forwarded-Proto": _forwards("x-forwarded-proto", "http"),
    "X-Forwarded-Host": _forwards("x-forwarded-host", "127.0.0.1"),
    "a request id": _forwards("x-request-id"),
    "traceparent": _forwards("traceparent"),
    "Via": lambda port, key: "via" in get(port, "/orders/7", key).fields,
}


def lacking(port: int, key: str) -> list[str]:
    """The checks that this proxy does not pass."""
    return [name for name, check in CHECKS.items() if not check(port, key)]
