from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anumate.lib.problem import Problem
from registry.live.registration import Registration, decode_heartbeat, decode_registration

BODY: dict[str, Any] = {
    "name": "orders",
    "version": "1.0.0",
    "endpoints": {"http": {"protocol": "http", "host": "localhost", "port": 8000}},
    "capabilities": ["http_api"],
    "tags": ["api"],
    "metadata": {"team": "blue"},
    "health_check": {"check_type": "http", "path": "/health"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def decode(**change: Any) -> Registration:
    return decode_registration(json.dumps(BODY | change).encode())


def test_the_same_service_at_the_same_endpoints_is_the_same_instance() -> None:
    one, again = decode(), decode(version="2.0", tags=[])
    other = decode(endpoints={"http": {"protocol": "http", "host": "localhost", "port": 8001}})
    assert one.key("default") == again.key("default")
    assert one.key("default") != other.key("default")
    assert decode(instance_id="mine").key("default").id == "mine"


def test_what_is_equal_becomes_an_equal_document() -> None:
    one = decode(metadata={"a": "1", "b": "2"}, tags=["x", "y", "x"])
    other = decode(metadata={"b": "2", "a": "1"}, tags=["x", "y"])
    assert one.document() == other.document()
    assert list(one.document().metadata) == list(other.document().metadata)


def test_the_first_endpoint_stays_the_first() -> None:
    places = {name: {"protocol": "tcp", "host": "10.0.0.1", "port": 1} for name in ("z", "a", "m")}
    assert list(decode(endpoints=places).document().endpoints) == ["z", "a", "m"]


def test_an_ipv6_host_may_come_in_brackets() -> None:
    host = (
        decode(endpoints={"http": {"protocol": "http", "host": "[::1]", "port": 80}}).document().endpoints["http"].host
    )
    assert host == "::1"


def test_a_heartbeat_may_say_nothing_or_how_it_is() -> None:
    assert decode_heartbeat(b"").fact(1.0) is None
    assert decode_heartbeat(b"{}").fact(1.0) is None
    fact = decode_heartbeat(b'{"status": "degraded", "output": "slow\\u0007 disk\\n"}').fact(1.0)
    assert fact is not None
    assert (fact.value, fact.sentence, fact.since) == ("degraded", "slow disk", 1.0)
    fact = decode_heartbeat(b'{"status": "healthy"}').fact(1.0)
    assert fact is not None
    assert fact.sentence == "It says that it is healthy."


@pytest.mark.parametrize("body", [b'{"status": "fine"}', b'{"state": "healthy"}', b'{"output": 7}', b'"healthy"'])
def test_a_heartbeat_of_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as raised:
        decode_heartbeat(body)
    assert raised.value.code == "validation_failed"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_with_a_problem(data: bytes) -> None:
    with contextlib.suppress(Problem):
        decode_registration(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([*Registration.__struct_fields__, "surprise"]), JSON)
def test_a_value_that_is_refused_is_pointed_at(field: str, value: Any) -> None:
    if problem := refusal(**{field: value}):
        assert problem.code == "validation_failed"
        assert problem.errors
        assert {error["pointer"].split("/")[1] for error in problem.errors} <= {field, "health_check"}
        assert all(error["detail"] for error in problem.errors)


def refusal(**change: Any) -> Problem | None:
    try:
        decode(**change)
    except Problem as problem:
        return problem
    return None
