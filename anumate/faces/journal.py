"""The page's journal: what changed, newest first. Pure: two pictures in, events out.

A page that is opened starts with what the database remembers; from then on events come from the live state itself, so
that they are on screen before any row is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from anumate.faces.picture import Breaker, InstanceView, ServiceView

Tone = Literal["good", "warn", "bad", "info", "mute"]

_HEALTH_TONE: dict[str, Tone] = {"healthy": "good", "degraded": "warn", "unhealthy": "bad", "unknown": "mute"}
_BREAKER_TONE: dict[str, Tone] = {"closed": "good", "half_open": "warn", "open": "bad"}
_BREAKER_WORD = {"closed": "breaker closed", "half_open": "breaker half-open", "open": "breaker open"}


class Event(msgspec.Struct, frozen=True):
    """One line of the journal. `instance` is empty when it is about the whole service."""

    at: float
    tone: Tone
    word: str
    service: str
    instance: str = ""
    sentence: str = ""


def health_event(at: float, service: str, instance: str, health: str, sentence: str) -> Event:
    return Event(at, _HEALTH_TONE.get(health, "mute"), health, service, instance, sentence)


def service_events(old: ServiceView | None, new: ServiceView | None, now: float) -> Iterator[Event]:
    """What happened to a service's instances between two views; None: there was, or is, none."""
    name = (new or old).name if (new or old) else ""  # type: ignore[union-attr]
    before = {each.id: each for each in old.instances} if old else {}
    after = {each.id: each for each in new.instances} if new else {}
    for id_, instance in after.items():
        if id_ not in before:
            yield Event(now, "info", "joined", name, id_, _where(instance))
        else:
            yield from _instance_events(name, before[id_], instance, now)
    for id_ in before.keys() - after.keys():
        yield Event(now, "mute", "left", name, id_, "It deregistered, or its lease ran out.")


def breaker_events(old: Mapping[str, Breaker], new: Mapping[str, Breaker], now: float) -> Iterator[Event]:
    for service, breaker in new.items():
        was = old[service].state if service in old else "closed"
        if breaker.state != was:
            word = _BREAKER_WORD[breaker.state]
            yield Event(breaker.since or now, _BREAKER_TONE[breaker.state], word, service, "", breaker.sentence)


def merge(remembered: Iterable[Event], limit: int) -> list[Event]:
    return sorted(remembered, key=lambda event: event.at, reverse=True)[:limit]


def _instance_events(name: str, old: InstanceView, new: InstanceView, now: float) -> Iterator[Event]:
    if new.state != old.state:
        tone: Tone = "good" if new.state == "enabled" else "info"
        sentence = "It is back in rotation." if new.state == "enabled" else new.sentence
        yield Event(now, tone, new.state, name, new.id, sentence)
    if new.health != old.health:
        sentence = new.sentence if new.state == "enabled" else ""
        yield health_event(now, name, new.id, new.health, sentence)


def _where(instance: InstanceView) -> str:
    parts = [instance.address, f"version {instance.version}" if instance.version else "", instance.zone]
    return ", ".join(part for part in parts if part)
