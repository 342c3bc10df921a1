"""What `doctor` makes of what it saw: findings, each with a sentence and the next step. Pure; nothing is asked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from anumate_integration_service.cli import times
from anumate_integration_service.cli.errors import NOT_ALLOWED
from anumate_integration_service.cli.visit import Visit

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"
_ORDER = (OK, WARNING, PROBLEM)

# Signed addresses, leases and expiries suffer from about here; NTP keeps clocks far closer.
SKEW_WARNING, SKEW_PROBLEM = 2.0, 30.0
MOST_NAMED = 10
EXPIRES_SOON = timedelta(days=14)
# A check this late was not made: several turns of it, and never less than a restart of the worker takes.
LATE_TURNS, LATE_LEAST = 4.0, 30.0
_SCOPES_OF = {
    "services": "registry:read",
    "health": "health:read",
    "breakers": "gateway:read",
    "routes": "gateway:read",
    "keys": "admin",
}


class Finding(NamedTuple):
    status: str
    about: str
    sentence: str
    next_step: str = ""


def findings(seen: Visit) -> list[Finding]:
    """Everything that can be said, in the order in which it is to be mended."""
    if refused := seen.refusal("ready"):
        found = [Finding(PROBLEM, "control plane", refused.sentence, "Start it, or say where it is with --url.")]
        return [*found, *_gateway(seen)]
    return [finding for judge in _JUDGES for finding in judge(seen)]


def worst(found: Sequence[Finding]) -> str:
    return max((each.status for each in found), key=_ORDER.index, default=OK)


def summary(found: Sequence[Finding]) -> str:
    count = {status: sum(each.status == status for each in found) for status in (PROBLEM, WARNING)}
    told = [f"{number} {status}{'' if number == 1 else 's'}" for status, number in count.items() if number]
    return f"{', '.join(told)}." if told else "Everything that can be seen from here is well."


def _control_plane(seen: Visit) -> Iterator[Finding]:
    if seen.body("ready").get("status") == "ready":
        yield Finding(OK, "control plane", f"{seen.url} is ready.")
    else:
        yield Finding(PROBLEM, "control plane", f"{seen.url} is starting or ending.", "Wait, then look at its log.")


def _key(seen: Visit) -> Iterator[Finding]:
    refused = seen.refusal("services")
    if refused and refused.status == NOT_ALLOWED and "scope_missing" not in refused.sentence:
        step = "Give a valid one with --api-key or ANUMATE_API_KEY; `keys create` makes one."
        yield Finding(PROBLEM, "API key", refused.sentence, step)
        return
    own = next((each for each in _results(seen, "keys") if each["public_id"] == seen.own_key), None)
    if own:
        yield Finding(OK, "API key", f"{own['name']} is valid, with scopes {', '.join(own['scopes'])}.")
        return
    may = dict.fromkeys(scope for name, scope in _SCOPES_OF.items() if seen.body(name) is not None)
    if missing := dict.fromkeys(scope for scope in _SCOPES_OF.values() if scope not in may):
        sentence = f"The key may {', '.join(may) or 'read nothing'}; it lacks {', '.join(missing)} for the rest."
        yield Finding(WARNING, "API key", sentence, "A key with these scopes lets doctor see everything.")
    else:
        yield Finding(OK, "API key", f"The key may {', '.join(may)}.")


def _parts(seen: Visit) -> Iterator[Finding]:
    parts = (seen.body("parts") or {}).get("parts", {})
    store, database = parts.get("store"), parts.get("database")
    if store == "ok":
        yield Finding(OK, "Redis", "The control plane is connected to it.")
    elif store:
        step = "Start it and look at REDIS_URL; the gateway goes on with what it knows."
        yield Finding(PROBLEM, "Redis", "The control plane does not reach it.", step)
    if database == "ok":
        yield _migrated(seen)
    elif database:
        step = "Start it and look at DATABASE_URL; nothing can be edited meanwhile."
        yield Finding(PROBLEM, "database", "The control plane does not reach it.", step)


def _migrated(seen: Visit) -> Finding:
    """A missing table shows in what stands in tables."""
    broken = [
        refused for name in ("routes", "keys") if (refused := seen.refusal(name)) and refused.status != NOT_ALLOWED
    ]
    if broken:
        step = "Run `python manage.py migrate`, or `anumate-integration start`, which does."
        return Finding(PROBLEM, "database", f"It answers, but its rows cannot be read: {broken[0].sentence}", step)
    if seen.body("routes") is None and seen.body("keys") is None:
        return Finding(OK, "database", "It answers; the key may not read what tells whether it is migrated.")
    return Finding(OK, "database", "It answers, and its tables are there.")


def _worker(seen: Visit) -> Iterator[Finding]:
    """Worker and beat together make the checks: one that is overdue says that one of the two does not work."""
    checks = [
        check
        for service in (seen.body("health") or {}).get("services", ())
        for instance in service["instances"]
        for check in instance["checks"]
    ]
    if seen.body("health") is None:
        return
    ages = [(age, check["interval"]) for check in checks if (age := _age(seen, check["checked_at"])) is not None]
    if not ages:
        yield Finding(OK, "worker and beat", "No check has been made yet, so nothing tells whether they run.")
        return
    age, interval = min(ages)
    if age > max(LATE_TURNS * interval, LATE_LEAST):
        step = "Start a Celery worker and beat, and look at their logs."
        yield Finding(PROBLEM, "worker and beat", f"The last health check was made {age:.0f} s ago.", step)
    else:
        yield Finding(OK, "worker and beat", f"They work: the last health check was made {max(age, 0):.0f} s ago.")


def _clock(seen: Visit) -> Iterator[Finding]:
    if seen.skew is None:
        return
    off = abs(seen.skew)
    if off < SKEW_WARNING:
        yield Finding(OK, "clock", "The platform's clock and this machine's agree.")
        return
    side = "ahead of" if seen.skew > 0 else "behind"
    status = PROBLEM if off >= SKEW_PROBLEM else WARNING
    yield Finding(status, "clock", f"The platform's clock is {off:.0f} s {side} this machine's.", "Run NTP on both.")


def _gateway(seen: Visit) -> Iterator[Finding]:
    if refused := seen.refusal("gateway"):
        status = PROBLEM if seen.gateway_given else WARNING
        yield Finding(status, "gateway", refused.sentence, "Start it, or say where it is with --gateway.")
        return
    here = seen.body("gateway")
    if "table_revision" not in here:
        yield Finding(WARNING, "gateway", f"{seen.gateway_url} is no gateway of Anumate.", "Say where with --gateway.")
        return
    if here["status"] != "ready":
        step = "It waits for a routing table: is its Redis the control plane's?"
        yield Finding(PROBLEM, "gateway", f"{seen.gateway_url} is {here['status']}.", step)
    elif here["redis"] != "connected":
        sentence = f"{seen.gateway_url} serves, but has lost Redis and goes on with what it knew."
        yield Finding(PROBLEM, "gateway", sentence, "Start Redis, and look at the gateway's REDIS_URL.")
    else:
        yield Finding(OK, "gateway", f"{seen.gateway_url} is ready and connected to Redis.")


def _tables(seen: Visit) -> Iterator[Finding]:
    """The published table is the measure, not the database: every edit counts there, of keys and of other tenants too,
    but only one that changes the table is sent on."""
    told = (seen.body("parts") or {}).get("routing_table")
    if not told:
        return
    published, outdated = told["published"], seen.outdated()
    for revision, count in sorted(Counter(outdated).items()):
        workers = "A worker" if count == 1 else f"{count} workers"
        serve = (
            f"serve{'s' if count == 1 else ''} revision {revision}"
            if revision
            else f"ha{'s' if count == 1 else 've'} no table"
        )
        names = seen.workers_at(revision)
        named = f" ({', '.join(names[:MOST_NAMED])}{', …' if len(names) > MOST_NAMED else ''})" if names else ""
        sentence = f"{workers} of the gateway{named} {serve} while {published} is published."
        step = "Its log says why it refuses the table. Is its REDIS_URL the control plane's? A restart reads it anew."
        yield Finding(PROBLEM, "routing table", sentence, step)
    if not outdated:
        yield Finding(
            OK, "routing table", f"Every worker of the gateway serves what is published, revision {published}."
        )


def _breakers(seen: Visit) -> Iterator[Finding]:
    if seen.body("breakers") is None:
        return
    well = True
    for each in _results(seen, "breakers"):
        if each["state"] == "closed" and not each["forced"]:
            continue
        well = False
        held = " by an operator" if each["forced"] else ""
        because = f" ({each['reason']})" if each["reason"] else ""
        reset = f"`circuit reset {each['name']}`"
        mend = f"{reset} lets it decide for itself." if held else f"Mend {each['service']}; {reset} tries it at once."
        yield Finding(WARNING, "breaker", f"{each['name']} is {_state(each)}{held}{because}.", mend)
    if well:
        yield Finding(OK, "breakers", "All are closed.")


def _state(breaker: Any) -> str:
    return f"{'held ' if breaker['forced'] else ''}{breaker['state'].replace('_', ' ')}"


def _services(seen: Visit) -> Iterator[Finding]:
    if seen.body("services") is None or seen.body("eligible") is None:
        return
    known = {each["name"] for each in seen.body("services")["services"]}
    served = {each["name"] for each in seen.body("eligible")["services"]}
    enabled = {each["name"] for each in seen.body("services")["services"] if each["state"] == "enabled"}
    for name in sorted(known - served):
        step = f"`services why {name}` says why of each."
        if name in enabled:
            yield Finding(PROBLEM, "service", f"No instance of {name} may get traffic.", step)
        else:
            yield Finding(WARNING, "service", f"An operator keeps traffic from every instance of {name}.", step)
    healthy = {each["name"] for each in seen.body("eligible")["services"] if each["status"] == "healthy"}
    for name in sorted(served - healthy):
        step = "`health status` says why; give it a check with `health configure` if it has none."
        yield Finding(WARNING, "service", f"{name} has no healthy instance; others get its traffic.", step)
    if known <= healthy:
        yield Finding(OK, "services", f"Each of {len(known)} has a healthy instance." if known else "There are none.")


def _routes(seen: Visit) -> Iterator[Finding]:
    if seen.body("routes") is None or seen.body("services") is None:
        return
    known = {each["name"] for each in seen.body("services")["services"]}
    lost = [
        (each["name"], target["service"])
        for each in _results(seen, "routes")
        if each["enabled"]
        for target in each["targets"]
        if target["service"] not in known
    ]
    for route, service in lost:
        step = f"Register an instance of {service}, or disable the route."
        yield Finding(PROBLEM, "route", f"{route} sends to {service}, of which no instance is registered.", step)
    if not lost:
        yield Finding(OK, "routes", "Each one's services have instances.")


def _expiries(seen: Visit) -> Iterator[Finding]:
    for each in _results(seen, "keys"):
        ends = times.read(each["expires_at"])
        if each["revoked_at"] or ends is None or not seen.now <= ends <= seen.now + EXPIRES_SOON:
            continue
        step = f"`keys rotate {each['public_id']}` makes its successor; a longer life is set in the admin."
        sentence = f"{each['name']} ({each['public_id']}) expires at {times.shown(each['expires_at'])}."
        yield Finding(WARNING, "API key", sentence, step)


def _results(seen: Visit, name: str) -> list[Any]:
    return list((seen.body(name) or {}).get("results", ()))


def _age(seen: Visit, moment: str | None) -> float | None:
    """Seconds by the platform's own clock."""
    read = times.read(moment)
    return None if read is None else (seen.now - read).total_seconds() + (seen.skew or 0.0)


_JUDGES: tuple[Callable[[Visit], Iterator[Finding]], ...] = (
    _control_plane,
    _key,
    _parts,
    _worker,
    _clock,
    _gateway,
    _tables,
    _breakers,
    _services,
    _routes,
    _expiries,
)
