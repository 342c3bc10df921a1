"""A real browser before the real web server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from anumate.lib.redis import connect
from registry.live.store import SyncStore
from tests import environment
from tests.conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a password for tests"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

SEED = f"""
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from registry.models import Member, Service, Tenant
User.objects.create_superuser("root", password={PASSWORD!r})
maria = User.objects.create_user("maria", password={PASSWORD!r}, is_staff=True)
default, acme = Tenant.objects.create(name="default"), Tenant.objects.create(name="acme")
Member.objects.create(tenant=acme, user=maria, role="owner")
Tenant.objects.create(name="fresh")
Service.objects.create(tenant=default, name="billing")
"""


@dataclass
class Web:
    """The web server of a fresh installation, and the store it follows."""

    url: str
    process: subprocess.Popen[bytes]
    redis: redis.Redis
    cookies: dict[str, list[Any]] = field(default_factory=dict)
    """Of those who have signed in: hashing a password takes a second by design."""

    @property
    def live(self) -> SyncStore:
        return SyncStore(self.redis)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    home = tmp_path_factory.mktemp("home")
    store = connect(f"redis://127.0.0.1:{environment.valkey.port}")
    store.flushall()
    env = {**os.environ, "ANUMATE_HOME": str(home), "LOG_LEVEL": "warning"}
    env.pop("DATABASE_URL", None)
    subprocess.run([sys.executable, "-c", SEED], cwd=ROOT, env=env, check=True)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "anumate.asgi:application", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or answers(f"{url}/readyz"), seconds=30, what="the web server")
        assert process.poll() is None, "the web server ended while it started"
        yield Web(url, process, store)
    finally:
        process.terminate()
        process.wait(10)
        store.flushall()
        store.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 (our own server)
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A module's browser: Playwright's loop must be over before another module's asynchronous tests start theirs."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A person's browser: opens pages, and notes what no page of ours may do."""

    web: Web
    context: Any
    troubles: list[str] = field(default_factory=list)

    def page(self, path: str) -> Any:
        page = self.context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: self._console(message))
        page.on("pageerror", lambda error: self.troubles.append(f"script error: {error}"))
        page.on("request", lambda request: self._request(request.url))
        page.goto(self.web.url + path)
        return page

    def sign_in(self, name: str = "root") -> None:
        if name not in self.web.cookies:
            self.by_password(name)
            self.web.cookies[name] = self.context.cookies()
        self.context.add_cookies(self.web.cookies[name])

    def by_password(self, name: str) -> None:
        page = self.page("/admin/login/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/admin/")
        page.close()

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"console: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.web.url, "data:", "blob:")):
            self.troubles.append(f"off-origin request: {url}")


@pytest.fixture
def visit(web: Web, chromium: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Fails the test when a page complained on the console or asked another origin for anything."""
    context = chromium.new_context(**getattr(request, "param", {"viewport": {"width": 1440, "height": 900}}))
    visit = Visit(web, context)
    yield visit
    context.close()
    assert visit.troubles == []


def until(page: Any, condition: str, seconds: float = 10) -> float:
    """Seconds until the JavaScript expression was true. (Playwright's own way needs a page that allows eval.)"""
    start = time.monotonic()
    wait_until(lambda: page.evaluate(f"!!({condition})"), seconds=seconds, what=condition)
    return time.monotonic() - start
