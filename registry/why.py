"""Why an instance, or a service, gets traffic or does not: one sentence, and every finding behind it.

What is known here is the lease, health, operators' words and the zone. Other apps know more (each check's last result,
the breaker, the versions that routes ask for); they register a provider, since the registry imports none of them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis
from django.conf import settings

from anumate.lib.redis import UNAVAILABLE, connect
from registry.live import ops
from registry.live.instances import Fact, Instance, Key
from registry.models import Instance as InstanceRow
from registry.models import Service, Tenant
from registry.selectors import catalog

logger = logging.getLogger("anumate.why")

LEVELS: Final = {"state": "instance", "service_state": "service", "zone_state": "zone"}


class Finding(NamedTuple):
    """One thing that was found out. `blocks`: this alone keeps traffic away. Times are seconds since the epoch."""

    kind: str
    sentence: str
    blocks: bool = False
    since: float = 0.0
    until: float = 0.0
    source: str = ""
    details: Mapping[str, Any] = {}


Findings = Mapping[str, Sequence[Finding]]
"""By the id of the instance; what is about the whole service stands under the empty one."""
Provider = Callable[[Tenant, str, Sequence[Instance], redis.Redis], Findings]

_providers: dict[str, Provider] = {}


def provide(name: str, provider: Provider) -> None:
    """Have `provider` asked whenever somebody asks why. One that cannot reach the store is named in the answer."""
    _providers[name] = provider


class Why(NamedTuple):
    """Whether an instance gets traffic, the sentence why, and what is behind it. `decided_by` is the level of the
    operator's word in force: instance, service, zone, or empty."""

    eligible: bool
    sentence: str
    health: str
    state: str
    live: bool
    facts: Mapping[str, Fact]
    decided_by: str = ""
    weight: int = 0
    zone: str = ""
    findings: Sequence[Finding] = ()


class ServiceWhy(NamedTuple):
    """How many instances of a service get traffic, the sentence why, and the same of each of them."""

    eligible: int
    live: int
    sentence: str
    findings: Sequence[Finding]
    instances: Mapping[str, Why]


def why_of(tenant: Tenant, service: str, instance_id: str, now: float) -> Why | None:
    """None when nobody has heard of the instance.

    Raises:
        redis.ConnectionError and its like: this process follows no catalogue and the store is away.
    """
    live = catalog().get(Key(tenant.name, service, instance_id))
    if live is not None:
        found = _findings(tenant, service, [live], now)
        return why(live, now, [*found[instance_id], *found[""]])
    row = InstanceRow.objects.filter(service__tenant=tenant, service__name=service, instance_id=instance_id).first()
    if row is None:
        return None
    since = f" since {row.gone_at:%Y-%m-%d %H:%M:%S} UTC" if row.gone_at else ""
    sentence = f"It gets no traffic: it holds no lease{since}. It deregistered, or its heartbeats stopped."
    return Why(False, sentence, "unknown", row.state, False, {}, zone=row.zone, weight=row.weight)


def why_service(tenant: Tenant, service: str, now: float) -> ServiceWhy | None:
    """None when nobody has heard of the service. Raises what `why_of` does."""
    instances = catalog().instances(tenant.name, service)
    if not instances:
        if not Service.objects.filter(tenant=tenant, name=service).exists():
            return None
        return ServiceWhy(0, 0, "It gets no traffic: no instance of it holds a lease.", (), {})
    found = _findings(tenant, service, instances, now)
    each = {one.key.id: why(one, now, [*found[one.key.id], *found[""]]) for one in instances}
    able = sum(one.eligible for one in each.values())
    return ServiceWhy(able, len(each), _service_sentence(able, each), found[""], each)


def why(instance: Instance, now: float, findings: Sequence[Finding] = ()) -> Why:
    """Pure: what is known about a live instance comes to this. The operators' word is told before health, and both
    before what else stands in the way."""
    health, state = instance.health, instance.state(now)
    word = next(instance.words(now), None)
    block = next((each for each in findings if each.blocks), None)
    if state != "enabled" and word:
        sentence = f"It gets no traffic. {_WHOM[word[0]]}{word[1].sentence.rstrip('.')}."
    elif health == "unhealthy":
        said = (f.sentence for k in ("probe", "reported") if (f := instance.facts.get(k)) and f.value == "unhealthy")
        sentence = f"It gets no traffic: it is unhealthy. {next(said, '')}".strip()
    elif block:
        sentence = f"It gets no traffic. {block.sentence.rstrip('.')}."
    elif health == "unknown":
        sentence = "It gets traffic: it holds a lease and is enabled; its health is not known yet."
    else:
        sentence = f"It gets traffic: it holds a lease, is enabled and {health}."
    return Why(
        eligible=instance.eligible(now) and block is None,
        sentence=sentence,
        health=health,
        state=state,
        live=True,
        facts=instance.facts,
        decided_by=LEVELS[word[0]] if word else "",
        weight=instance.weight(now),
        zone=instance.document.zone,
        findings=(*_own_findings(instance, now), *findings),
    )


_WHOM: Final = {"state": "", "service_state": "The whole service: ", "zone_state": "The whole zone: "}


def _own_findings(instance: Instance, now: float) -> Iterator[Finding]:
    for kind in ("probe", "reported"):
        if fact := instance.facts.get(kind):
            text = fact.sentence or f"It is {fact.value}."
            yield Finding("health", text, fact.value == "unhealthy", fact.since, source=kind)
    words = list(instance.words(now))
    for place, (kind, fact) in enumerate(words):
        passed = "" if place == 0 else f" (but the {LEVELS[words[0][0]]}'s word comes first)"
        blocks = place == 0 and fact.value != "enabled"
        details = {"level": LEVELS[kind], "state": fact.value, "weight": fact.weight}
        yield Finding("state", fact.sentence + passed, blocks, fact.since, fact.expires_at, fact.source, details)
    if not words:
        yield Finding("state", "No operator has said anything about it, its service or its zone")
    zone = instance.document.zone
    yield Finding("zone", f"It is in zone {zone}" if zone else "It names no zone")


def _findings(
    tenant: Tenant, service: str, instances: Sequence[Instance], now: float
) -> defaultdict[str, list[Finding]]:
    """What the store and the providers know."""
    found: defaultdict[str, list[Finding]] = defaultdict(list)
    client = connect(settings.REDIS_URL)
    try:
        for name, provider in {"lease": _leases(now), **_providers}.items():
            try:
                for instance_id, told in provider(tenant, service, instances, client).items():
                    found[instance_id] += told
            except UNAVAILABLE as error:
                logger.warning("The store is away, %s cannot be told: %s", name, error)
                found[""].append(Finding(name, "This is not known now: the store is away"))
    finally:
        client.close()
    return found


def _leases(now: float) -> Provider:
    def leases(tenant: Tenant, service: str, instances: Sequence[Instance], client: redis.Redis) -> Findings:
        ends: Any = client.zmscore(ops.PREFIX + "leases", [str(each.key) for each in instances])
        return {
            each.key.id: [_lease(each, end / 1000 if end is not None else 0.0, now)]
            for each, end in zip(instances, ends, strict=True)
        }

    return leases


def _lease(instance: Instance, ends: float, now: float) -> Finding:
    """A lease is held past its end while its holder may not be at fault, or until the sweep comes by."""
    since, ttl = instance.registered_at, instance.document.lease_ttl
    if not ends:
        text = f"The store no longer has its lease; it is held for {ttl} s for it to register again"
        return Finding("lease", text, since=since, details={"held": True})
    if ends <= now:
        text = "Its lease has lapsed; it is held until it is known that this is its own fault"
        return Finding("lease", text, since=since, until=ends, details={"held": True})
    text = f"It holds a lease of {ttl} s, which lapses in {ends - now:.0f} s unless it is renewed"
    return Finding("lease", text, since=since, until=ends, details={"held": False})


def _service_sentence(able: int, each: Mapping[str, Why]) -> str:
    if able == len(each):
        return "It gets traffic: its one instance does." if able == 1 else f"It gets traffic: all {able} instances do."
    first = next(one.sentence for one in each.values() if not one.eligible)
    if able:
        name = next(name for name, one in each.items() if not one.eligible)
        return f"It gets traffic: {able} of {len(each)} instances do. Of {name}: {first}"
    return first if len(each) == 1 else f"It gets no traffic: none of its {len(each)} instances does. {first}"
