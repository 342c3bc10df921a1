"""The story of a start: look first, then store, gateway, rows, the rest, the demo; then wait; then stop in order."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from anumate.lib import env as environment
from anumate.lib.env import Env, EnvError
from anumate.lib.state import PASSWORD_FILE, keep_secret, note_shown
from anumate.stack import preflight, programs
from anumate.stack.console import Console
from anumate.stack.options import Options
from anumate.stack.process import Child, Program, StartError
from anumate.stack.rolling import Rolling

ANSWER_WITHIN = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(options: Options) -> int:
    """Start the platform and stay until it is told to stop; the exit status."""
    console = Console(sys.stdout)
    try:
        options.check()
        environ = _environ(options)
        env = environment.read(environ)
    except (StartError, EnvError) as error:
        console.error(str(error))
        return 1
    console.show_programs = env.log_level == "debug"
    return asyncio.run(Stack(options, env, environ, console).serve())


class Stack:
    """Everything that was started, from the first child to the last."""

    def __init__(self, options: Options, env: Env, environ: dict[str, str], console: Console) -> None:
        self.options = options
        self.env = env
        self.environ = environ
        self.console = console
        self.home = env.home
        self.children: list[Child] = []
        self._lock: int | None = None
        self._interrupted = 0
        self._stop = asyncio.Event()
        self._rolling: Rolling | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        loop.add_signal_handler(signal.SIGUSR2, self._renew_gateway)
        rising = asyncio.create_task(self.up())
        stopped = asyncio.create_task(self._stop.wait())
        failure: StartError | None = None
        try:
            await asyncio.wait({rising, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if rising.done():
                rising.result()
                await stopped
        except StartError as error:
            failure = error
        finally:
            ending = [rising, stopped, *([self._renewal] if self._renewal else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            await self.down()
        if failure is not None:
            self.console.error(str(failure), failure.details)
        return 1 if failure is not None else 0

    async def up(self) -> None:
        begun = time.monotonic()
        self.console.say("\n  Anumate Integration Service is starting …\n")
        self._look_first()
        if not self.env.redis_url:
            await self._start_store()
        gateway = asyncio.create_task(self._start_gateway())  # it has no use for the database
        try:
            first = await self._bootstrap()
            await self._start_control_plane()
            await gateway
        finally:
            gateway.cancel()
            await asyncio.gather(gateway, return_exceptions=True)
        if self.options.demo:
            await self._start_demo()
        self._show(first, time.monotonic() - begun)
        note_shown(self.home)
        self.console.show_programs = True

    async def down(self) -> None:
        """Stop in stages, each all at once; what does not stop in time is killed."""
        for stage in sorted(programs.GRACE, reverse=True):
            grace = programs.GRACE[stage]
            await asyncio.gather(*(child.stop(grace) for child in self.children if child.program.stage == stage))
        if self._lock is not None:
            (self.home / "redis-url").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _interrupt(self) -> None:
        """The first time stop in order; the second time at once."""
        self._interrupted += 1
        self._stop.set()
        if self._interrupted == 1:
            self.console.show_programs = self.env.log_level == "debug"
            self.console.say("\n  Stopping … (again to stop at once)")
            return
        for child in self.children:
            child.kill()

    def _renew_gateway(self) -> None:
        """SIGUSR2: new workers for the gateway, one by one, without a request lost."""
        if self._rolling is not None and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(self._renew(self._rolling))

    async def _renew(self, rolling: Rolling) -> None:
        try:
            self.console.event("gateway", f"has new workers, after {await rolling.replace():.1f} s")
        except StartError as error:
            self.console.event("gateway", f"keeps the workers it has: {error}")

    def _look_first(self) -> None:
        """All that can be known before anything is written, so that a start that cannot work leaves nothing."""
        preflight.key_well_formed(self.env)
        preflight.home_usable(self.home)
        preflight.port_free(self.options.host, self.options.port, "--port")
        if self.env.gateway_enabled and self.options.port == self.env.gateway_port:
            port = self.options.port
            raise StartError(
                f"port {port} is the control plane's and the gateway's; choose another with --port or --gateway-port."
            )
        if self.env.gateway_enabled:
            preflight.port_free(self.options.host, self.env.gateway_port, "--gateway-port")
        if self.env.redis_url:
            preflight.redis_reachable(self.env.redis_url)
        preflight.database_reachable(self.env.database_url, self.home)
        self._lock = preflight.claim_home(self.home)

    async def _start_store(self) -> None:
        port, password = preflight.free_port(), keep_secret(self.home, "store-password")
        store = await self._launch(programs.store(self.home, port, password))
        url = f"redis://:{password}@127.0.0.1:{port}"
        self.environ["REDIS_URL"] = url
        _write_private(self.home / "redis-url", url)
        await self._report(store, "embedded Valkey, kept in " + _short(self.home / "valkey"))

    async def _start_gateway(self) -> None:
        if not self.env.gateway_enabled:
            return
        port, workers = self.env.gateway_port, self.options.gateway_workers
        gateway = await self._launch(
            programs.gateway(
                self.environ, self.options.host, port, workers, self.env.log_level, programs.listener_tls(self.env)
            )
        )
        self._rolling = Rolling(gateway, self.env.gateway_drain_seconds)
        await self._report(gateway, f"gateway on port {port}")

    async def _start_control_plane(self) -> None:
        port, level = self.options.port, self.env.log_level
        web = await self._launch(programs.web(self.environ, self.options.host, port, self.options.workers, level))
        await self._launch(programs.worker(self.environ, level))
        await self._launch(programs.beat(self.environ, self.home, level))
        await self._report(web, f"control plane on port {port}")

    async def _bootstrap(self) -> bool:
        """Migrations, and on the first start the first tenant, administrator and key. Whether nobody can sign in yet,
        because no start has come as far as saying how."""
        begun = time.monotonic()
        answer = await self._ask(programs.bootstrap(self.environ, demo=self.options.demo))
        self.console.progress("database", "migrated", time.monotonic() - begun)
        return bool(answer["first"])

    async def _ask(self, program: Program) -> dict[str, Any]:
        """Run it to its end; the JSON on its last line."""
        child = await self._launch(program)
        if await child.finish():
            *details, sentence = child.tail or [f"{program.name} ended without a word."]
            raise StartError(sentence.removeprefix("CommandError: "), tuple(details))
        answer: dict[str, Any] = json.loads(child.tail[-1])
        return answer

    async def _start_demo(self) -> None:
        """The services, and a first answer through the gateway. It is no reason to end when somebody changed its key
        or its route."""
        begun = time.monotonic()
        environ = self.environ | {
            "ANUMATE_URL": f"http://{_bracketed(programs.reachable(self.options.host))}:{self.options.port}",
            "ANUMATE_API_KEY": self._api_key(),
        }
        services = [await self._launch(program) for program in programs.demo(environ)]
        try:
            # Before the first request: after a crash the registry still knows the addresses of their predecessors.
            await asyncio.gather(*(service.ready(ANSWER_WITHIN) for service in services))
            if self.env.gateway_enabled:
                await self._first_answer()
        except StartError as error:
            self.console.warn("demo", str(error), time.monotonic() - begun)
            return
        names = ", ".join(f"{count} × {name}" for name, count in programs.DEMO_INSTANCES.items())
        self.console.progress("demo", names, time.monotonic() - begun)

    async def _first_answer(self) -> None:
        headers = {"X-API-Key": self._api_key()}
        begun, status = time.monotonic(), 0
        while status != 200:
            if time.monotonic() - begun > ANSWER_WITHIN:
                raise StartError(f"the gateway answers {status or 'nothing'} for /orders/")
            await asyncio.sleep(0.05)
            status = await programs.status_of(
                self.env.gateway_port,
                "/orders/",
                host=self.options.host,
                headers=headers,
                secure=bool(self.env.gateway_tls_certificate),
            )

    def _show(self, first: bool, seconds: float) -> None:
        """The block; with how to sign in, where somebody has yet to be told."""
        host = "localhost" if programs.reachable(self.options.host) in {"127.0.0.1", "::1"} else self.options.host
        base = f"http://{_bracketed(host)}:{self.options.port}"
        rows = [("Live page", f"{base}/live/"), ("Admin", f"{base}/admin/"), ("API docs", f"{base}/api/docs/")]
        if first:
            rows.append(("Sign in", self._sign_in()))
        kept, key = self._shown_key(first)
        rows.append(("API key", kept))
        if self.env.gateway_enabled:
            path = "orders/" if self.options.demo else ""
            scheme = "https" if self.env.gateway_tls_certificate else "http"
            address = f"{scheme}://{_bracketed(host)}:{self.env.gateway_port}/{path}"
            rows.append(("Gateway", f'curl -H "X-API-Key: {key}" {address}'))
        victim = next((child for child in self.children if child.program.stage == programs.DEMO), None)
        if victim is not None:
            rows.append(("Break it", f"kill -9 {victim.pid}   ({victim.program.name}; watch the live page)"))
        closing = f"Ctrl-C stops everything. Logs: {_short(self.home / 'logs')}/"
        self.console.block(f"Anumate is up, {seconds:.1f} s", rows, closing=closing)

    def _sign_in(self) -> str:
        if self.env.admin_password:
            return f"{self.env.admin_username}, with ANUMATE_ADMIN_PASSWORD"
        password = (self.home / PASSWORD_FILE).read_text(encoding="utf-8").strip()
        return f"{self.env.admin_username} / {password}   (shown this once)"

    def _shown_key(self, first: bool) -> tuple[str, str]:
        """How the API key is shown, and how a shell gets it. The key itself is shown once."""
        if self.env.bootstrap_api_key:
            return "ANUMATE_BOOTSTRAP_API_KEY", "$ANUMATE_BOOTSTRAP_API_KEY"
        file = _short(self.home / "api-key")
        key = self._api_key() if first else f"$(cat {shlex.quote(file)})"
        return (key if first else f"in {file}"), key

    def _api_key(self) -> str:
        if self.env.bootstrap_api_key:
            return self.env.bootstrap_api_key
        return (self.home / "api-key").read_text(encoding="utf-8").strip()

    async def _launch(self, program: Program) -> Child:
        child = Child(program, self.console, self.home / "logs")
        self.children.append(child)
        await child.start()
        return child

    async def _report(self, child: Child, what: str) -> None:
        self.console.progress(child.program.name, what, await child.ready())


def _environ(options: Options) -> dict[str, str]:
    """The environment of every child: ours, with what the flags say on top."""
    environ = dict(os.environ)
    flags = {
        "REDIS_URL": options.redis,
        "DATABASE_URL": options.database_url,
        "GATEWAY_PORT": str(options.gateway_port) if options.gateway_port else None,
    }
    environ.update({name: value for name, value in flags.items() if value})
    if not environ.get("ALLOWED_HOSTS") and options.host not in Env().allowed_hosts:
        # Who listens for others is called by others: by the name of this machine, or by the address that was given.
        own = {_bracketed(options.host), socket.gethostname()} - {"0.0.0.0", "[::]"}  # noqa: S104
        environ["ALLOWED_HOSTS"] = ",".join([*Env().allowed_hosts, *sorted(own)])
    environ["ANUMATE_HOME"] = str(Path(environ.get("ANUMATE_HOME") or ".anumate").resolve())
    environ["DJANGO_SETTINGS_MODULE"] = "anumate.settings"
    environ["PYTHONUNBUFFERED"] = "1"
    return environ


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def _short(path: Path) -> str:
    """As a person would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
