"""The supervisor, with small stand-in programs."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anumate.stack.console import Console
from anumate.stack.process import BackOff, Child, Program, StartError
from tests import environment
from tests.conftest import eventually, wait_until

ENV = environment.BARE


class Bench:
    """Starts children, and ends what a test leaves."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.out = io.StringIO()
        self.console = Console(self.out)
        self.console.show_programs = True
        self.children: list[Child] = []

    async def start(self, code: str, **options: object) -> Child:
        argv = (sys.executable, "-u", "-c", textwrap.dedent(code))
        child = Child(Program("thing", argv, ENV, **options), self.console, self.logs)  # type: ignore[arg-type]
        self.children.append(child)
        await child.start()
        return child


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for child in bench.children:
        await child.stop(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_passes_on_what_a_program_says_with_its_name_and_keeps_it_in_a_log(bench: Bench) -> None:
    child = await bench.start("print('hello'); print('no newline', end='')", restart=False)
    assert await child.finish() == 0
    assert [line.split("│ ")[1] for line in bench.out.getvalue().splitlines()] == ["hello", "no newline"]
    assert (bench.logs / "thing.log").read_text().splitlines()[0].endswith(" hello")


async def test_a_line_without_end_does_not_fill_the_memory(bench: Bench) -> None:
    child = await bench.start("print('x' * 1_000_000)", restart=False)
    await child.finish()
    assert max(map(len, child.tail)) < 200_000


async def test_a_program_that_is_killed_is_started_again(bench: Bench) -> None:
    child = await bench.start("import time; print('up'); time.sleep(60)")
    first = child.pid
    await eventually(lambda: "up" in child.tail)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: child.pid != first and child.tail.count("up") == 2)
    assert "ended by SIGKILL; starts again in 0.2 s" in bench.out.getvalue()


async def test_what_a_killed_program_had_started_goes_with_it(bench: Bench) -> None:
    child = await bench.start(
        """
        import subprocess, sys, time
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(other.pid)
        time.sleep(60)
        """,
        restart=False,
    )
    await eventually(lambda: child.tail)
    orphan = int(child.tail[0])
    os.kill(child.pid, signal.SIGKILL)
    await child.finish()
    await eventually(lambda: not alive(orphan))


async def test_stop_is_polite_first(bench: Bench) -> None:
    child = await bench.start(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("bye") or 0))
        print("up")
        time.sleep(60)
        """
    )
    await eventually(lambda: "up" in child.tail)
    await child.stop(5)
    assert "starts again" not in bench.out.getvalue()
    assert not alive(child.pid)


async def test_stop_ends_a_program_that_ignores_being_asked(bench: Bench) -> None:
    child = await bench.start(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)"
    )
    await eventually(lambda: "up" in child.tail)
    begun = time.monotonic()
    await child.stop(0.2)
    assert not alive(child.pid)
    assert time.monotonic() - begun < 2


async def test_stop_while_it_waits_to_start_a_program_again(bench: Bench) -> None:
    child = await bench.start("raise SystemExit(3)")
    await eventually(lambda: "ended with status 3" in bench.out.getvalue())
    await child.stop(1)
    assert not alive(child.pid)


async def test_a_program_that_ends_before_it_is_ready_fails_the_start_with_its_last_words(bench: Bench) -> None:
    async def never() -> bool:
        return False

    child = await bench.start("print('no database'); raise SystemExit(1)", ready=never)
    with pytest.raises(StartError, match="ended while it was starting") as raised:
        await child.ready()
    assert raised.value.details == ("no database",)


async def test_a_program_that_is_never_ready_fails_the_start(bench: Bench) -> None:
    async def never() -> bool:
        return False

    child = await bench.start("import time; time.sleep(60)", ready=never)
    with pytest.raises(StartError, match=r"not ready after 0\.1 s"):
        await child.ready(within=0.1)


async def test_it_says_what_cannot_be_started(tmp_path: Path) -> None:
    child = Child(Program("ghost", ("/no/such/program",), ENV, restart=False), Console(io.StringIO()), tmp_path)
    await child.start()
    assert await child.finish() != 0
    assert "No such file" in child.tail[-1]
    await child.stop(1)


async def test_standard_input_is_handed_over_and_closed(bench: Bench) -> None:
    child = await bench.start("import sys; print(sys.stdin.read())", stdin=b"a secret", restart=False)
    await child.finish()
    assert list(child.tail) == ["a secret"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
        import asyncio, io, pathlib, sys
        from anumate.stack.console import Console
        from anumate.stack.process import Child, Program

        async def main():
            argv = (sys.executable, "-c", "import time; time.sleep(60)")
            child = Child(Program("thing", argv, {{}}), Console(io.StringIO()), pathlib.Path({str(tmp_path)!r}))
            await child.start()
            print(child.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        supervisor.kill()
    wait_until(lambda: not alive(child))


def test_back_off_doubles_and_begins_anew_after_a_steady_run() -> None:
    back_off = BackOff()
    assert [back_off.after(0.1) for _ in range(4)] == [0.2, 0.4, 0.8, 1.6]
    assert back_off.after(60.0) == 0.2
    for _ in range(20):
        longest = back_off.after(0.1)
    assert longest == 30.0


async def test_stopping_twice_is_as_good_as_once(bench: Bench) -> None:
    child = await bench.start("import time; time.sleep(60)")
    await asyncio.gather(child.stop(1), child.stop(1))
    assert not alive(child.pid)
