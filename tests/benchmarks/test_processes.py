"""What /proc says of a program and of all that it started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.processes import TICK, Memory, Stat, descendants, memory, read_rollup, read_stat, tree

STAT = "42 (a (odd) name) S 7 42 42 0 -1 4194560 5 0 0 0 250 150 9 9 20 0 1 0 100 1000 10\n"
ROLLUP = """\
55d0-7ffd ---p 00000000 00:00 0                          [rollup]
Rss:               10240 kB
Pss:                5120 kB
Pss_Dirty:          1024 kB
"""


def test_a_stat_is_read_whatever_the_name_holds() -> None:
    assert read_stat(STAT) == Stat(parent=7, cpu=400 / TICK)


def test_a_rollup_is_read_in_megabytes() -> None:
    assert read_rollup(ROLLUP) == Memory(rss=10.0, pss=5.0)


def test_the_processes_of_a_program_are_those_it_started_and_theirs() -> None:
    assert descendants(10, {10: 1, 11: 10, 12: 11, 13: 1, 14: 10}) == [10, 11, 14, 12]
    assert descendants(10, {}) == [10]


def test_a_child_counts_until_it_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.pid in tree(os.getpid())
    assert memory(child.pid).rss > 0
    child.communicate(b"\n")
    assert child.pid not in tree(os.getpid())
    assert memory(child.pid) == pytest.approx((0.0, 0.0))
