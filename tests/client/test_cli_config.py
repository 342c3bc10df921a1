"""`export`, `diff` and `apply`, each as a process against a platform on a real port."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_django.live_server_helper import LiveServer

from anumate_integration_service.cli import changes
from gateway.models import Route
from tests import environment
from tests.api import secret

CODE = "from anumate_integration_service.cli.main import main; main()"
FILE = """\
routes:
  - name: orders
    service: orders
"""


class Ended(NamedTuple):
    status: int
    out: str
    error: str


class Shell:
    def __init__(self, home: Path, url: str, key: str) -> None:
        self.home = home
        self.file = home / "config.yaml"
        self.file.write_text(FILE, encoding="utf-8")
        self.environ = {
            **environment.BARE,
            "ANUMATE_URL": url,
            "ANUMATE_API_KEY": key,
            "PYTHONPATH": os.getcwd(),
        }

    def run(self, *arguments: str, given: str = "") -> Ended:
        return asyncio.run(self._run(arguments, given))

    async def _run(self, arguments: tuple[str, ...], given: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CODE,
            *arguments,
            cwd=self.home,
            env=self.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate(given.encode())
        return Ended(process.returncode or 0, out.decode(), error.decode())


@pytest.fixture
def shell(tmp_path: Path, live_server: LiveServer, transactional_db: None) -> Shell:
    return Shell(tmp_path, live_server.url, secret())


def test_a_file_is_compared_applied_and_written_back(shell: Shell) -> None:
    differs = shell.run("diff", "config.yaml")
    assert (differs.status, differs.error) == (1, "")
    assert differs.out.splitlines()[-4:] == [
        "+ routes orders",
        '    + name: "orders"',
        '    + service: "orders"',
        "Would add 2 entries.",
    ]
    assert not Route.objects.exists()
    applied = shell.run("apply", "config.yaml", "--yes")
    assert (applied.status, applied.error) == (0, "")
    assert applied.out.startswith("Added 2 entries; the revision is ")
    exported = shell.run("export")
    assert "  - name: orders\n    service: orders\n" in exported.out
    same = shell.run("diff", "-", "--prune", given=exported.out)
    assert (same.status, same.out) == (0, "Would change nothing.\n")
    assert shell.run("apply", "config.yaml").status == 0  # nothing to ask about
    assert json.loads(shell.run("export", "--json").out)["routes"] == [{"name": "orders", "service": "orders"}]
    assert json.loads(shell.run("diff", "config.yaml", "--json").out)["changes"] == []


@pytest.mark.parametrize(
    ("kinds", "intent", "outcome"),
    [
        ({}, "change nothing", "Changed nothing"),
        ({"changed": 1}, "change 1 entry", "Changed 1 entry"),
        ({"removed": 2}, "remove 2 entries", "Removed 2 entries"),
        (
            {"removed": 3, "added": 2, "changed": 1},
            "add 2, change 1, remove 3 entries",
            "Added 2, changed 1, removed 3 entries",
        ),
    ],
)
def test_what_is_changed_is_said_in_a_sentence(kinds: dict[str, int], intent: str, outcome: str) -> None:
    made = [{"change": kind} for kind, count in kinds.items() for _ in range(count)]
    assert (changes.intent(made), changes.outcome(made)) == (intent, outcome)


def test_nothing_is_applied_where_nobody_can_be_asked(shell: Shell) -> None:
    ended = shell.run("apply", "config.yaml")
    assert (ended.status, ended.out) == (1, "")
    assert ended.error == "anumate-integration: This would add 2 entries; say --yes, as nobody can be asked here.\n"
    assert not Route.objects.exists()


def test_a_bad_entry_is_one_line_with_its_place_in_the_file(shell: Shell) -> None:
    shell.file.write_text(FILE + "    retries: -1\n", encoding="utf-8")
    for command, status in (("diff", 2), ("apply", 1)):
        ended = shell.run(command, "config.yaml")
        assert (ended.status, ended.out) == (status, "")
        assert ended.error.startswith("anumate-integration: config.yaml, line 4, /routes/0/retries: ")
        assert ended.error.count("\n") == 1


def test_diff_calls_every_trouble_2(shell: Shell) -> None:
    assert shell.run("diff", "none.yaml") == (
        2,
        "",
        "anumate-integration: none.yaml cannot be read: No such file or directory.\n",
    )
    assert shell.run("diff", "config.yaml", "--url", "http://127.0.0.1:1").status == 2
    assert shell.run("diff", "config.yaml", "--api-key", "nonsense").status == 2
