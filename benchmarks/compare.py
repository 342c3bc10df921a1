"""Our gateway and its peers at the same work: `python -m benchmarks peers --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import checks, ours, services
from benchmarks.peers import PEERS, Peer
from benchmarks.services import Services
from benchmarks.stand import CORES, Stand, free_port
from benchmarks.stats import Table, ratios, spread
from benchmarks.workloads import WORKLOADS, Contestant, Sample, Workload

OURS: Final = "ours"
HEADER: Final = ("", "requests/s", "p50 ms", "p99 ms", "failed", "CPU µs", "busy %", "RSS MB", "PSS MB")
Rounds = dict[str, list[Sample]]


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
    balanced = {"orders": "p2c", "uneven": "p2c", "uneven-health": "health_aware"}
    upstreams = [ours.table.Upstream("default", service, how) for service, how in balanced.items()]  # type: ignore[arg-type]
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


def interleave(contestants: Sequence[Contestant], rounds: int, measure: Callable[[Contestant], Sample]) -> Rounds:
    """Each in turn, round by round; each round begins with another one."""
    found: Rounds = {each.name: [] for each in contestants}
    for number in range(rounds):
        turn = number % len(contestants)
        for contestant in [*contestants[turn:], *contestants[:turn]]:
            found[contestant.name].append(measure(contestant))
    return found


def table_of(title: str, found: Rounds, first: str = "") -> Table:
    """Medians, and what `first` is to each of the others: the median of its ratios and their range."""
    first = first or next(iter(found))
    lines = []
    for name, samples in found.items():
        middle = [spread(column).middle for column in zip(*samples, strict=True)]
        line = [name, f"{middle[0]:,.0f}", f"{middle[1]:.2f}", f"{middle[2]:.2f}", f"{sum(s.failed for s in samples)}"]
        line += [f"{middle[4]:,.1f}", *(f"{value:.0f}" for value in middle[5:8])]
        lines.append(line + (_ratios(found[first], samples) if name != first else ["", "", ""]))
    header = (*HEADER, *(f"{first}/it {what}" for what in ("requests/s", "CPU", "p99")))
    return Table(title, header if len(found) > 1 else HEADER, [line[: None if len(found) > 1 else 9] for line in lines])


def _ratios(mine: Sequence[Sample], theirs: Sequence[Sample]) -> list[str]:
    return [
        str(ratios([getattr(each, name) for each in mine], [getattr(each, name) for each in theirs]))
        for name in ("per_second", "cpu_us", "p99_ms")
    ]


def compared(name: str, workload: Workload, field: Field, rounds: int, seconds: float) -> tuple[Table, Rounds]:
    contestants = [variant for each in field.contestants for variant in workload.variants(each)]
    for each in contestants:
        workload.measure(each, 1)  # connections, caches and branch predictors
    found = interleave(contestants, rounds, lambda each: workload.measure(each, seconds))
    return table_of(f"{name}: {workload.about}", found), found


def machine() -> str:
    model = "an unknown processor"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{len(CORES)} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peer", action="append", choices=[*names, "none"], help="again for more; else all of them")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="again for more; else all of them")
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 101), metavar="1..100")
    parser.add_argument("--seconds", type=int, default=5, choices=range(1, 601), metavar="1..600")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] = ()) -> None:
    chosen = options(arguments)
    peers = [peer for peer in PEERS if chosen.peer is None or peer.name in chosen.peer]
    report: dict[str, Any] = {"machine": machine(), "notes": [], "workloads": {}}
    tables: list[Table] = []

    def tell(table: Table) -> None:
        tables.append(table)
        print(f"\n{table.text()}", flush=True)

    print(report["machine"], flush=True)
    with field_of(peers) as field:
        report["notes"] = field.notes
        print("\n".join(field.notes), flush=True)
        for name in chosen.workload or WORKLOADS:
            table, found = compared(name, WORKLOADS[name], field, chosen.rounds, chosen.seconds)
            tell(table)
            report["workloads"][name] = {who: [each._asdict() for each in samples] for who, samples in found.items()}
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if chosen.markdown:
        head = [report["machine"], "", *(f"- {note}" for note in report["notes"])]
        chosen.markdown.write_text("\n\n".join(["\n".join(head), *(each.markdown() for each in tables)]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
