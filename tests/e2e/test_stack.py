"""One command, as a user gives it: the platform comes up, answers, loses parts while it is used, and goes down."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import wait_until
from tests.e2e.running import Running, free_ports, processes_in, running
from tests.gateway.proxy.test_upstream_tls import Authority

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds its processes in /proc"),
]
CLI = (sys.executable, "-m", "anumate_integration_service.cli.main")


class Platform:
    """A running platform, as its user sees it."""

    def __init__(self, process: Running, ports: tuple[str, ...]) -> None:
        self.process = process
        self.url = f"http://localhost:{ports[1]}"
        self.gateway = f"http://localhost:{ports[3]}"
        self.key = (process.home / ".anumate" / "api-key").read_text().strip()

    def cli(self, *arguments: str) -> Any:
        ended = subprocess.run(
            [*CLI, *arguments, "--url", self.url, "--json"],
            cwd=self.process.home,
            env=self.process.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def instances(self, service: str) -> dict[str, str]:
        """Its instances and what the checks say of them."""
        found = self.cli("services", "list", "--name", service)["services"]
        return {each["instance_id"]: each["status"] for each in found}

    @contextmanager
    def load(self, path: str, *, callers: int = 2) -> Iterator[Counter[str]]:
        """Callers that never pause, each request on a connection of its own; what they were answered."""
        seen: Counter[str] = Counter()
        stop = threading.Event()

        def call() -> None:
            fresh = httpx.Limits(max_keepalive_connections=0)
            with httpx.Client(headers={"X-API-Key": self.key}, timeout=10, limits=fresh) as http:
                while not stop.is_set():
                    ask(http)

        def ask(http: httpx.Client) -> None:
            try:
                answer = http.get(self.gateway + path)
                seen[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    seen[answer.json()["instance"]] += 1
            except httpx.TransportError as error:
                seen[type(error).__name__] += 1

        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: seen["200"] > 20, what="answers before anything happens")
            yield seen
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("platform")


@pytest.fixture(scope="module")
def platform(home: Path) -> Iterator[Platform]:
    ports = free_ports()
    with running(home, "--demo", *ports) as process:
        process.wait_until_up()
        yield Platform(process, ports)


def errors(seen: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in seen.items() if name != "200" and not name.startswith(("orders-", "inven"))}


def after(seen: Counter[str], count: int = 30) -> Callable[[], bool]:
    """Whether `count` more requests were answered by now."""
    enough = seen["200"] + count
    return lambda: seen["200"] >= enough


def test_the_printed_curl_is_answered_through_the_gateway(platform: Platform) -> None:
    ended = platform.process.curl()
    assert json.loads(ended.stdout)["service"] == "orders", ended


def test_the_first_start_shows_a_password_that_opens_the_admin(platform: Platform) -> None:
    line = next(line for line in platform.process.lines if "Sign in" in line)
    match = re.search(r"admin / (\S+)", line)
    assert match is not None
    with httpx.Client(base_url=platform.url, follow_redirects=True) as browser:
        browser.get("/admin/login/")
        form = {
            "username": "admin",
            "password": match[1],
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            "next": "/admin/",
        }
        answer = browser.post("/admin/login/", data=form, headers={"Referer": platform.url})
    assert answer.status_code == 200
    assert "sessionid" in browser.cookies


def test_secrets_are_readable_by_their_owner_only(platform: Platform) -> None:
    for name in ("admin-password", "api-key", "secret-key", "api-key-pepper", "store-password", "redis-url"):
        assert (platform.process.home / ".anumate" / name).stat().st_mode & 0o077 == 0, name


def test_every_demo_instance_becomes_healthy(platform: Platform) -> None:
    for service in ("orders", "inventory"):
        names = [f"{service}-{number}" for number in (1, 2, 3)]
        wait_until(
            lambda service=service, names=names: platform.instances(service) == dict.fromkeys(names, "healthy"),
            seconds=15,
            what=f"three healthy instances of {service}",
        )


@pytest.mark.parametrize("path", ["/live/", "/admin/", "/api/docs/", "/health", "/livez", "/readyz"])
def test_what_the_block_names_is_there(platform: Platform, path: str) -> None:
    assert httpx.get(platform.url + path, follow_redirects=True).status_code == 200


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        (b"FOO bar baz\r\n\r\n", b"malformed_request"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 33_000 + b"\r\n\r\n", b"headers_too_large"),
    ],
)
def test_both_ports_refuse_what_is_no_request_as_a_problem(platform: Platform, sent: bytes, refused: bytes) -> None:
    for url in (platform.url, platform.gateway):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as connection:
            connection.sendall(sent)
            answer = connection.makefile("rb").read()
        assert b"application/problem+json" in answer
        assert b'"code":"' + refused in answer


def test_a_service_is_registered_routed_and_reached(platform: Platform) -> None:
    found = platform.cli("services", "list", "--name", "orders")["services"][0]["endpoints"]["http"]
    headers = {"X-API-Key": platform.key}
    with httpx.Client(headers=headers) as http:
        body = {
            "name": "my-service",
            "version": "1.0.0",
            "endpoints": {"http": found},
            "capabilities": ["http_api"],
            "tags": ["api", "production"],
        }
        registered = http.post(f"{platform.url}/v1/services/register", json=body)
        assert registered.status_code == 201, registered.text
        listed = http.get(f"{platform.url}/v1/services?service_name=my-service&capability=http_api").json()
        assert [each["instance_id"] for each in listed["services"]] == [registered.json()["instance_id"]]
        route = {"name": "mine", "path": "/mine", "service": "my-service"}
        assert http.post(f"{platform.url}/v1/routes", json=route).status_code == 201
        wait_until(lambda: http.get(f"{platform.gateway}/mine/").status_code == 200, what="the new route")


def test_killing_an_instance_costs_no_caller_an_error(platform: Platform) -> None:
    (victim,) = platform.process.pids(r"demo orders orders-2")
    with platform.load("/orders/", callers=16) as seen:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: "orders-2" not in platform.instances("orders"), seconds=15, what="the lease to end")
        wait_until(after(seen))
    assert errors(seen) == {}
    assert processes_in(platform.process.home).get(victim) is None


def test_an_instance_that_answers_500_leaves_the_rotation_and_comes_back(platform: Platform) -> None:
    found = platform.cli("services", "list", "--name", "inventory")["services"]
    port = next(each["endpoints"]["http"]["port"] for each in found if each["instance_id"] == "inventory-1")
    httpx.post(f"http://127.0.0.1:{port}/break?seconds=4")
    wait_until(lambda: platform.instances("inventory")["inventory-1"] == "unhealthy", what="the verdict")
    with platform.load("/inventory/") as seen:
        wait_until(after(seen))
    assert errors(seen) == {}
    assert seen["inventory-1"] == 0
    wait_until(lambda: platform.instances("inventory")["inventory-1"] == "healthy", seconds=15, what="its recovery")


def test_killing_a_gateway_worker_stops_nothing(platform: Platform) -> None:
    master, victim, *_ = platform.process.pids(r"gunicorn .*app:gateway")
    with platform.load("/orders/") as seen:
        os.kill(victim, signal.SIGKILL)
        wait_until(after(seen))
        wait_until(lambda: len(platform.process.pids(r"gunicorn .*app:gateway")) == 3, what="a new worker")
        wait_until(after(seen))
    # Only who was being served by it at that moment may notice.
    assert sum(errors(seen).values()) <= 2, seen
    assert platform.process.pids(r"gunicorn .*app:gateway")[0] == master


def test_killing_the_celery_worker_is_mended(platform: Platform) -> None:
    (victim,) = platform.process.pids(r"celery .*worker")
    with platform.load("/orders/") as seen:
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: platform.process.pids(r"celery .*worker") not in ([], [victim]), seconds=15, what="a new worker"
        )
        wait_until(after(seen))
    assert errors(seen) == {}
    assert "worker" in platform.process.output
    assert "ended by SIGKILL; starts again" in platform.process.output


def test_killing_the_embedded_store_is_survived(platform: Platform) -> None:
    (victim,) = platform.process.pids(r"valkey-server")
    with platform.load("/orders/") as seen:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: platform.process.pids(r"valkey-server") not in ([], [victim]), what="a new store")
        wait_until(after(seen))
    assert errors(seen) == {}


def test_ctrl_c_ends_everything_in_time_and_the_next_start_knows_all(platform: Platform, home: Path) -> None:
    with httpx.stream("GET", f"{platform.url}/v1/services/watch", headers={"X-API-Key": platform.key}) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert platform.process.interrupt() < 5
        list(lines)  # comes to its end, rather than breaking off
    assert platform.process.process.returncode == 0
    assert processes_in(home) == {}
    assert not (home / ".anumate" / "redis-url").exists()

    ports = free_ports()
    with running(home, "--demo", *ports) as process:
        process.wait_until_up()
        assert "Sign in" not in process.output
        assert json.loads(process.curl().stdout)["service"] == "orders"
        again = Platform(process, ports)
        assert again.key == platform.key
        with httpx.Client(headers={"X-API-Key": again.key}) as http:
            assert http.get(f"{again.url}/v1/routes/mine").status_code == 200
        assert process.interrupt() < 5
    assert processes_in(home) == {}


def test_a_start_after_a_crash_answers_at_once(tmp_path: Path) -> None:
    """The store still knows the addresses of instances that are gone."""
    with running(tmp_path, "--demo", *free_ports()) as process:
        process.wait_until_up()
        os.kill(process.process.pid, signal.SIGKILL)
        process.join()
        wait_until(lambda: processes_in(tmp_path) == {}, what="everything to follow the supervisor")
    with running(tmp_path, "--demo", *free_ports()) as process:
        process.wait_until_up()
        for _ in range(10):
            assert json.loads(process.curl().stdout)["service"] == "orders"
        assert process.interrupt() < 5


def test_the_gateway_speaks_https_where_it_is_given_a_certificate(tmp_path: Path) -> None:
    authority = Authority()
    identity = authority.identity("127.0.0.1")
    (tmp_path / "tls.crt").write_text(identity.certificate)
    (tmp_path / "tls.key").write_text(identity.key)
    tls = {"GATEWAY_TLS_CERTIFICATE": str(tmp_path / "tls.crt"), "GATEWAY_TLS_KEY": str(tmp_path / "tls.key")}
    ports = free_ports()
    with running(tmp_path, "--demo", *ports, environ=tls) as process:
        process.wait_until_up()
        assert f"https://localhost:{ports[3]}/orders/" in process.output
        key = (tmp_path / ".anumate" / "api-key").read_text().strip()
        context = ssl.create_default_context(cadata=authority.certificate)
        answer = httpx.get(f"https://127.0.0.1:{ports[3]}/orders/", headers={"X-API-Key": key}, verify=context)
        assert (answer.status_code, answer.json()["service"]) == (200, "orders")
        assert process.interrupt() < 5
