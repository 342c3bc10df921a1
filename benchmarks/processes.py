"""What /proc says of a program and of all the processes it started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
TICK: Final = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """The part of /proc/<pid>/stat that matters here; `cpu` is user and system time in seconds."""

    parent: int
    cpu: float


class Memory(NamedTuple):
    """In MB. PSS counts a page that several processes share by their shares."""

    rss: float
    pss: float


def read_stat(text: str) -> Stat:
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return Stat(int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK)


def read_rollup(text: str) -> Memory:
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in text.splitlines()[1:]}
    return Memory(found["Rss"], found["Pss"])


def descendants(root: int, parents: Mapping[int, int]) -> list[int]:
    """`root` and all that it started, parents first."""
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def tree(root: int) -> list[int]:
    pids = (int(path.name) for path in PROC.iterdir() if path.name.isdigit())
    return descendants(root, {pid: stat.parent for pid, stat in _stats(pids)})


def cpu_seconds(root: int) -> float:
    """The processor time that a program has used so far, with its processes that live."""
    return sum(stat.cpu for _, stat in _stats(tree(root)))


def memory(root: int) -> Memory:
    found = [read_rollup(text) for text in _texts(tree(root), "smaps_rollup")]
    return Memory(sum(each.rss for each in found), sum(each.pss for each in found))


def _stats(pids: Iterable[int]) -> Iterator[tuple[int, Stat]]:
    for pid in pids:
        for text in _texts([pid], "stat"):
            yield pid, read_stat(text)


def _texts(pids: Iterable[int], name: str) -> Iterator[str]:
    """Without those that ended meanwhile."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield (PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace")
