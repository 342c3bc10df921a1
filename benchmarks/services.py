"""The services behind the proxies: nginx where it is installed, else our own; ours too for what nginx cannot play."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.stand import OTHER, PYTHON, Stand, free_port
from benchmarks.upstream import SIZES

SLOW_MS: Final = 200
HERE: Final = Path(__file__).parent
SYSTEM: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Services(NamedTuple):
    """Ports of the instances: two fast ones, a slow one, and one that takes WebSockets."""

    first: int
    second: int
    slow: int
    echo: int
    kind: str


def start(stand: Stand) -> Services:
    first, second, slow, echo = (free_port() for _ in range(4))
    nginx = program("nginx")
    if nginx:
        files = stand.home / "files"
        files.mkdir()
        for path, size in SIZES.items():
            (files / path.decode().strip("/")).write_bytes(b"x" * size)
        config = stand.home / "upstream.conf"
        config.write_text(fill(HERE / "upstream.conf", {"home": stand.home, "first": first, "second": second}))
        config.parent.chmod(0o711)  # nginx's worker is another user when its master is root
        stand.start(nginx, "-p", str(stand.home), "-c", str(config), core=OTHER, port=second)
    else:
        stand.start(PYTHON, "-m", "benchmarks.upstream", str(first), str(second), core=OTHER, port=second)
    stand.start(PYTHON, "-m", "benchmarks.upstream", str(echo), f"{slow}:{SLOW_MS}", core=OTHER, port=slow)
    return Services(first, second, slow, echo, "nginx" if nginx else "our own service")


def program(name: str) -> str | None:
    """Where a program is: beside this Python, as wheels bring it, or where the system keeps it."""
    beside = Path(PYTHON).parent / name
    return str(beside) if beside.exists() else shutil.which(name, path=SYSTEM)


def fill(template: Path, values: Mapping[str, object]) -> str:
    return fill_in(template.read_text(encoding="utf-8"), values)


def fill_in(text: str, values: Mapping[str, object]) -> str:
    """A text with its @names@ filled in. Raises KeyError for one that has no value."""
    return re.sub(r"@([a-z_]+)@", lambda found: str(values[found[1]]), text)
