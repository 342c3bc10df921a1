"""Our gateway and its peers at the same work: `python -m benchmarks peers --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import checks, ours, services
from benchmarks.alone import ALONE, Terms
from benchmarks.peers import PEERS, Peer
from benchmarks.rounds import Rounds, interleave, table_of
from benchmarks.services import Services
from benchmarks.stand import CORES, Stand, free_port
from benchmarks.stats import Table
from benchmarks.workloads import WORKLOADS, Contestant, Workload
from gateway.proxy.table import Strategy, Upstream

OURS: Final = "ours"
ALIASES: Final = {name: "routes" for name in ("routes-1", "routes-100", "routes-10000")} | {
    name: "keys" for name in ("keys-10000", "keys-cold")
}
"""Cases that are measured together, so that each has its pair."""
ON_DEMAND: Final = ("memory",)
"""What takes long is measured when it is asked for by name."""


class Field(NamedTuple):
    """Who runs, and the sentences on what was checked and who could not be had."""

    contestants: list[Contestant]
    notes: list[str]


@contextlib.contextmanager
def field_of(peers: Sequence[Peer]) -> Iterator[Field]:
    """The services, our gateway and the peers, all of them started and checked."""
    with Stand() as stand:
        found = services.start(stand)
        mine = start_ours(stand, found)
        notes = [f"The service behind them is {found.kind}.", _checked(mine, ())]
        contestants = [mine]
        for peer in peers:
            if peer.program() is None:
                notes.append(f"{peer.name} is left out: it comes from {peer.came_from}.")
                continue
            contestants.append(start_peer(stand, found, peer, mine.key))
            notes.append(f"{_checked(contestants[-1], peer.may_lack)} It cannot do: {peer.lacks}.")
        yield Field(contestants, notes)


def start_ours(stand: Stand, found: Services) -> Contestant:
    key = ours.publish_keys(stand)[0]
    routes = [ours.route(1, "orders", "orders"), ours.route(2, "limited", "orders", "few")]
    routes += [ours.route(3, "uneven", "uneven"), ours.route(4, "uneven-health", "uneven-health")]
    routes.append(ours.route(5, "echo", "echo"))
    balanced: dict[str, Strategy] = {"orders": "p2c", "uneven": "p2c", "uneven-health": "health_aware"}
    upstreams = [Upstream("default", service, how) for service, how in balanced.items()]
    ours.publish_routes(stand, [*routes, *ours.others(95)], upstreams=upstreams)
    fast, all_of_them = (found.first, found.second), (found.first, found.second, found.slow)
    ours.register(stand, {"orders": fast, "uneven": all_of_them, "uneven-health": all_of_them, "echo": (found.echo,)})
    port = free_port()
    contestant = Contestant(OURS, ours.start(stand, port), port, key)
    checks.ready(port, key)
    return contestant


def start_peer(stand: Stand, found: Services, peer: Peer, key: str) -> Contestant:
    port = free_port()
    contestant = Contestant(peer.name, peer.start(stand, port, found, key), port, key)
    checks.ready(port, key)
    return contestant


def _checked(contestant: Contestant, may_lack: Sequence[str]) -> str:
    """Raises SystemExit when a proxy does not do what it is configured for: its figures would mean nothing."""
    lacking = checks.lacking(contestant.port, contestant.key)
    if unexpected := set(lacking) - set(may_lack):
        raise SystemExit(f"{contestant.name} fails these checks: {', '.join(sorted(unexpected))}.")
    passed = [name for name in checks.CHECKS if name not in lacking]
    return f"{contestant.name} was checked for {', '.join(passed)}."


def compared(name: str, workload: Workload, field: Field, rounds: int, seconds: float) -> tuple[Table, Rounds]:
    mine = field.contestants[0]
    contestants = [mine, *workload.varied(mine), *field.contestants[1:]]
    for each in contestants:
        workload.send(each, 1)  # so that connections and caches are warm
    cases = {each.name: partial(workload.measure, each, seconds) for each in contestants}
    found = interleave(cases, rounds)
    return table_of(f"{name}: {workload.about}", found), found


def machine() -> str:
    model = "an unknown processor"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{len(CORES)} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    peers = [*(peer.name for peer in PEERS), "none"]
    names = [*WORKLOADS, *ALONE, *ALIASES]
    parser.add_argument("--peer", action="append", choices=peers, help="again for more; none of them; else all")
    parser.add_argument("--workload", action="append", choices=names, help="again for more; else all but memory")
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 101), metavar="1..100")
    parser.add_argument("--seconds", type=int, default=5, choices=range(1, 601), metavar="1..600")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the workload memory")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def results(chosen: argparse.Namespace, notes: list[str]) -> Iterator[tuple[str, Table, Rounds]]:
    """Each workload as soon as it is measured. `notes` takes up what was checked."""
    asked = [ALIASES.get(name, name) for name in chosen.workload or [*WORKLOADS, *ALONE] if name not in ON_DEMAND]
    asked += [name for name in chosen.workload or () if name in ON_DEMAND]
    names = list(dict.fromkeys(asked))
    if shared := [name for name in names if name in WORKLOADS]:
        peers = [peer for peer in PEERS if chosen.peer is None or peer.name in chosen.peer]
        with field_of(peers) as field:
            notes += field.notes
            print("\n".join(field.notes), flush=True)
            for name in shared:
                yield name, *compared(name, WORKLOADS[name], field, chosen.rounds, chosen.seconds)
    terms = Terms(chosen.rounds, chosen.seconds, chosen.minutes)
    for name in names:
        if name in ALONE:
            for table, found in ALONE[name](terms):
                yield name, table, found


def main(arguments: Sequence[str] = ()) -> None:
    chosen = options(arguments)
    where, notes, tables = machine(), list[str](), list[Table]()
    workloads: dict[str, Any] = {}
    print(where, flush=True)
    for name, table, found in results(chosen, notes):
        print(f"\n{table.text()}", flush=True)
        tables.append(table)
        workloads.setdefault(name, []).append(as_data(table, found))
    if chosen.json:
        report = {"machine": where, "notes": notes, "workloads": workloads}
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if chosen.markdown:
        chosen.markdown.write_text(as_markdown(where, notes, tables), encoding="utf-8")


def as_data(table: Table, found: Rounds) -> dict[str, Any]:
    """Every sample, and for what has none the table."""
    if not found:
        return {"title": table.title, "lines": [dict(zip(table.header, line, strict=True)) for line in table.lines]}
    return {"title": table.title, "rounds": {who: [each._asdict() for each in all_of] for who, all_of in found.items()}}


def as_markdown(where: str, notes: Sequence[str], tables: Sequence[Table]) -> str:
    said = "\n".join([f"Measured on {where}.", "", *(f"- {note}" for note in notes)])
    return "\n\n".join([said.rstrip(), *(each.markdown() for each in tables)]) + "\n"
