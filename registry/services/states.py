"""What operators want, as the live state knows it."""

from __future__ import annotations

from registry.live.instances import Fact, Key
from registry.models import Instance, Service


def live_key(target: Service | Instance) -> Key:
    """The name of a row in the live state."""
    if isinstance(target, Instance):
        return Key(target.service.tenant.name, target.service.name, target.instance_id)
    return Key(target.tenant.name, target.name)


def state_fact(target: Service | Instance) -> Fact | None:
    """The row's state as a fact; none while no operator has said anything. The later word wins, `enabled` too."""
    if target.state_since is None:
        return None
    return Fact(
        value=target.state,
        sentence=_sentence(target),
        since=target.state_since.timestamp(),
        source=target.state_actor,
        expires_at=target.state_expires_at.timestamp() if target.state_expires_at else 0.0,
    )


def _sentence(target: Service | Instance) -> str:
    by = f" by {target.state_actor}" if target.state_actor else ""
    why = f": {target.state_reason}" if target.state_reason else ""
    return f"Set to {target.state}{by}{why}"
