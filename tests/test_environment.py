"""What a test run leaves behind: nothing, even if it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import environment
from tests.conftest import wait_until
from tests.keeper import started_by

ROOT = Path(__file__).parent.parent
RUN = """
import subprocess, sys
from tests import environment

again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"
child = subprocess.Popen([sys.executable, "-c", again], env=environment.BARE, stdin=subprocess.PIPE)
print(environment.HOME, flush=True)
input()
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux tells what a process was started with")
def test_a_run_that_is_killed_takes_everything_with_it_that_it_started() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=ROOT, env=environment.BARE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with run:
        assert run.stdout is not None
        home = run.stdout.readline().decode().strip()
        # Its keeper, its Valkey, its child and that one's; the run itself began before it had a home.
        wait_until(lambda: len(started_by(home)) == 4, what="all to be started")
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not started_by(home), what="all to end")
