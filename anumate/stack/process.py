"""Keeps programs running: starts them, passes on what they say, starts them again with back-off, stops them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anumate.stack.console import Console

LEASH = str(Path(__file__).with_name("leash.py"))
TAIL_LINES = 15
LOG_BYTES = 5_000_000
LONGEST_LINE = 16_384
READY_WITHIN = 30.0
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0
STEADY_AFTER = 10.0


class StartError(Exception):
    """Why the platform cannot start: one sentence, and what a program said last, if that helps."""

    def __init__(self, sentence: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.details = details


@dataclass(frozen=True)
class Program:
    """What to run and how to treat it. Stages stop from the highest to the lowest.

    It does its work once `ready` says so, or, for programs that `announce` it, once a line of theirs says so.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stage: int = 1
    stdin: bytes = b""
    restart: bool = True
    ready: Callable[[], Awaitable[bool]] | None = None
    announces: str = ""


@dataclass
class BackOff:
    """How long to wait before the next start. A program that ran steadily begins anew."""

    delay: float = field(default=FIRST_DELAY, init=False)

    def after(self, ran_for: float) -> float:
        if ran_for >= STEADY_AFTER:
            self.delay = FIRST_DELAY
        delay, self.delay = self.delay, min(self.delay * 2, LONGEST_DELAY)
        return delay


class Child:
    """One program under supervision, in a session of its own, so that Ctrl-C reaches only the supervisor."""

    def __init__(self, program: Program, console: Console, logs: Path) -> None:
        self.program = program
        self.console = console
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.listeners: list[Callable[[str], None]] = []
        """Called with each line that it says."""
        self._log = _log_file(logs / f"{program.name}.log")
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._started = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def ready(self, within: float = READY_WITHIN) -> float:
        """Wait until it does its work; how many seconds that took since it was started.

        Raises:
            StartError: it ended, or said nothing in time.
        """
        begun = self._started
        while not await self._works():
            if self._keeper is None or self._started != begun or self._ended:
                raise StartError(f"{self.program.name} ended while it was starting.", tuple(self.tail))
            if time.monotonic() - begun > within:
                raise StartError(f"{self.program.name} was not ready after {within:g} s.", tuple(self.tail))
            await asyncio.sleep(0.05)
        return time.monotonic() - begun

    async def _works(self) -> bool:
        if self.program.announces:
            return any(self.program.announces in line for line in self.tail)
        return self.program.ready is None or await self.program.ready()

    async def finish(self) -> int:
        """Wait for a program that is not started again; its exit status."""
        assert self._keeper is not None  # noqa: S101
        await asyncio.shield(self._keeper)
        return self._status

    async def stop(self, within: float) -> None:
        """End it and everything it started: politely, then, after `within` seconds, not."""
        self._stopping = True
        process = self._process
        if process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), within)
        self.kill()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if process is not None:
            await process.wait()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._log.close()

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """At once, children included: a server's orphaned workers would keep its port."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def _ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    @property
    def _status(self) -> int:
        return self._process.returncode or 0 if self._process else 0

    async def _keep(self) -> None:
        back_off = BackOff()
        while self._process is not None:
            status = await self._process.wait()
            self.kill()
            if self._stopping:
                return
            if not self.program.restart:
                await asyncio.gather(*self._pumps)
                if status:
                    self.console.event(self.program.name, f"ended {_how(status)}")
                return
            delay = back_off.after(time.monotonic() - self._started)
            self.console.event(self.program.name, f"ended {_how(status)}; starts again in {delay:.1f} s")
            await asyncio.sleep(delay)
            try:
                await self._spawn()
            except StartError as error:
                self.console.event(self.program.name, str(error))

    async def _spawn(self) -> None:
        # A pipe of our own: with asyncio's, `wait` would also wait for orphans that still hold the other end.
        read, write = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                LEASH,
                str(os.getpid()),
                *self.program.argv,
                stdin=asyncio.subprocess.PIPE if self.program.stdin else asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                env=dict(self.program.env),
                start_new_session=True,
            )
        except OSError as error:
            os.close(read)
            raise StartError(f"{self.program.name} cannot be started: {error}.") from error
        finally:
            os.close(write)
        self._started = time.monotonic()
        pump = asyncio.create_task(self._pump(read))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        if self._process.stdin is not None:
            self._process.stdin.write(self.program.stdin)
            self._process.stdin.close()

    async def _pump(self, descriptor: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        rest = b""
        try:
            while data := await reader.read(65_536):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._heard(line)
            if rest:
                self._heard(rest)
        finally:
            transport.close()

    def _heard(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        self.tail.append(text)
        for listener in self.listeners:
            listener(text)
        self._log.emit(logging.makeLogRecord({"msg": text}))
        self.console.line(self.program.name, text)


def _log_file(path: Path) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    return handler


def _how(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    return f"by {signal.Signals(-status).name}"
