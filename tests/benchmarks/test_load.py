"""What the load sends, and what it reads of `wrk`."""

from __future__ import annotations

import pytest

from benchmarks.load import Request, Result, encode, read_wrk
from benchmarks.workloads import WORKLOADS, replace_path

PRINTED = """\
Running 5s test @ http://127.0.0.1:8080/orders/7
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.60ms  612.00us  15.49ms   91.62%
    Req/Sec    12.30k     0.91k   13.60k    80.00%
  Latency Distribution
     50%  812.00us
     75%    2.73ms
     90%    3.02ms
     99%    1.20s
  61234 requests in 5.01s, 12.85MB read
Requests/sec:  12222.40
Transfer/sec:      2.57MB
"""


def test_what_wrk_prints_is_read_in_milliseconds() -> None:
    assert read_wrk(PRINTED) == Result(12222.4, 0.812, 1200.0, 0, 61234, 5.01)


def test_refusals_and_broken_connections_have_failed() -> None:
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 30\n"
    assert read_wrk(PRINTED.replace("Requests/sec", errors + "Requests/sec")).failed == 40


@pytest.mark.parametrize(("unit", "seconds"), [("900.00ms", 0.9), ("1.50m", 90.0)])
def test_a_run_may_be_told_in_other_units(unit: str, seconds: float) -> None:
    assert read_wrk(PRINTED.replace("5.01s,", f"{unit},")).elapsed == pytest.approx(seconds)


def test_a_request_carries_the_fields_of_all_and_its_own() -> None:
    request = Request("GET", "/orders/7", headers={"X-API-Key": "mine"})
    assert encode(request, "h:1", {"X-API-Key": "theirs", "X-Other": "1"}) == (
        b"GET /orders/7 HTTP/1.1\r\nHost: h:1\r\nX-API-Key: mine\r\nX-Other: 1\r\n\r\n"
    )


def test_a_body_is_told_by_its_length() -> None:
    sent = encode(Request("POST", "/", "{}"), "h", {})
    assert sent.endswith(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    assert encode(Request("POST", "/", length=3), "h", {}).endswith(b"Content-Length: 3\r\n\r\nxxx")
    assert encode(Request("PUT", "/"), "h", {}).endswith(b"Content-Length: 0\r\n\r\n")


def test_a_contestant_may_have_a_path_of_its_own() -> None:
    instead = {"/uneven/7": "/uneven-health/7"}
    assert replace_path(Request(path="/uneven/7"), instead).path == "/uneven-health/7"
    assert replace_path(Request(path="/orders/7"), instead).path == "/orders/7"


def test_the_mixed_load_is_as_it_says() -> None:
    methods = [each.method for each in WORKLOADS["mixed"].requests]
    assert {method: methods.count(method) for method in methods} == {"GET": 5, "POST": 2, "PUT": 2, "DELETE": 1}
