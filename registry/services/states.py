"""What operators want, as the live state knows it."""

from __future__ import annotations

from registry.live.instances import Fact, Key
from registry.models import Instance, Service, Zone

Target = Service | Instance | Zone
"""What an operator can speak about."""


def spoken() -> dict[Key, Fact]:
    """Every word that was said, `enabled` too: it may take back what an old store still holds."""
    rows: list[Target] = [
        *Zone.objects.filter(state_since__isnull=False).select_related("tenant").order_by("pk"),
        *Service.objects.filter(state_since__isnull=False).select_related("tenant").order_by("pk"),
        *Instance.objects.filter(state_since__isnull=False).select_related("service__tenant").order_by("pk"),
    ]
    return {live_key(row): fact for row in rows if (fact := state_fact(row))}


def live_key(target: Target) -> Key:
    """The name of a row in the live state."""
    if isinstance(target, Instance):
        return Key(target.service.tenant.name, target.service.name, target.instance_id)
    if isinstance(target, Zone):
        return Key(target.tenant.name, "", target.name)
    return Key(target.tenant.name, target.name)


def state_fact(target: Target) -> Fact | None:
    """The row's word as a fact; none while no operator has said anything. The later word wins, `enabled` too."""
    if target.state_since is None:
        return None
    return Fact(
        value=target.state,
        sentence=_sentence(target),
        since=target.state_since.timestamp(),
        source=target.state_actor,
        expires_at=target.state_expires_at.timestamp() if target.state_expires_at else 0.0,
        weight=target.state_weight,
    )


def _sentence(target: Target) -> str:
    # The store calls facts with one sentence and one expiry the same, so whatever else makes a word stands in here.
    weight = f" with weight {target.state_weight}" if target.state_weight is not None else ""
    by = f" by {target.state_actor}" if target.state_actor else ""
    why = f": {target.state_reason}" if target.state_reason else ""
    return f"Set to {target.state}{weight}{by}{why}"
