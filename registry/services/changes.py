"""Every change of the configuration goes through here: audit row, revision + 1 and announcement, all or nothing.

Admin, API and commands open `change()` around what they write:

    with change(actor, "changed", route) as recorded:
        route.save()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.db.models import F

from registry.models import AuditEntry, Revision, Tenant
from registry.signals import configuration_changed

SECRET_FIELDS = frozenset({"secret_hash", "password", "sealed_secret", "tls_key"})


@dataclass(frozen=True)
class Actor:
    """Who changes something: a person, an API key, a command or the platform itself."""

    kind: str
    name: str
    request_id: str = ""

    @classmethod
    def person(cls, user: Any, request_id: str = "") -> Actor:
        return cls(AuditEntry.ActorKind.PERSON, user.get_username(), request_id)

    @classmethod
    def key(cls, name: str, public_id: str, request_id: str = "") -> Actor:
        return cls(AuditEntry.ActorKind.KEY, f"{name} ({public_id})", request_id)

    @classmethod
    def command(cls, name: str) -> Actor:
        return cls(AuditEntry.ActorKind.COMMAND, name)


SYSTEM = Actor(AuditEntry.ActorKind.SYSTEM, "anumate")


@contextmanager
def change(actor: Actor, action: str, instance: models.Model, *, reason: str = "") -> Iterator[None]:
    """Record what the block does to `instance` (and the rows that hang on it), in one transaction with it."""
    with transaction.atomic():
        before = snapshot(_stored(instance))
        label, pk = str(instance), instance.pk
        yield
        after = snapshot(_stored(instance)) if instance.pk else None
        if before == after:
            return
        tenant = tenant_of(instance)
        AuditEntry.objects.create(
            tenant=tenant if tenant is not None and tenant.pk else None,
            actor_kind=actor.kind,
            actor=actor.name[:200],
            action=action,
            object_type=instance._meta.label,
            object_id=str(instance.pk or pk),
            object_label=(str(instance) if after else label)[:255],
            before=before,
            after=after,
            reason=reason[:500],
            request_id=actor.request_id,
        )
        announce(instance._meta.label)


_models_of_the_step: ContextVar[dict[str, None] | None] = ContextVar("models_of_the_step", default=None)


@contextmanager
def one_step() -> Iterator[None]:
    """Make the changes of the block one transaction that raises the revision by one, or not at all when it changes
    nothing. Each change keeps its audit row."""
    models_changed: dict[str, None] = {}
    with transaction.atomic():
        token = _models_of_the_step.set(models_changed)
        try:
            yield
        finally:
            _models_of_the_step.reset(token)
        if models_changed:
            announce(", ".join(models_changed))


def announce(model: str) -> None:
    """Raise the revision and, once committed, tell who listens.

    A listener may be told several times of one transaction; it compares revisions, so only the first costs anything.
    """
    if (changed := _models_of_the_step.get()) is not None:
        changed[model] = None
        return
    Revision.objects.get_or_create(pk=1)
    Revision.objects.filter(pk=1).update(number=F("number") + 1)
    transaction.on_commit(partial(_tell, model))


def _tell(model: str) -> None:
    number = Revision.objects.values_list("number", flat=True).get(pk=1)
    configuration_changed.send_robust(sender=Revision, revision=number, model=model)


def _stored(instance: models.Model) -> models.Model | None:
    if instance.pk is None:
        return None
    return type(instance)._base_manager.filter(pk=instance.pk).first()


def snapshot(instance: models.Model | None) -> dict[str, Any] | None:
    """The row and the rows that are part of it (a route's targets), as JSON values without secrets."""
    if instance is None:
        return None
    values = _row(instance)
    for name in getattr(instance, "audited_parts", ()):
        values[name] = [_row(part) for part in getattr(instance, name).all()]
    return values


def _row(instance: models.Model) -> dict[str, Any]:
    encoder = DjangoJSONEncoder()
    values: dict[str, Any] = {}
    for field in instance._meta.concrete_fields:
        if field.name in SECRET_FIELDS:
            continue
        value = getattr(instance, field.attname)
        if field.is_relation and value is not None:
            value = str(getattr(instance, field.name))
        values[field.name] = value if _is_json(value) else encoder.default(value)
    return values


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, dict))


def tenant_of(instance: models.Model) -> Tenant | None:
    """The tenant a row belongs to, found on itself or on what it hangs on."""
    if isinstance(instance, Tenant):
        return instance
    for name in ("tenant", "service", "route"):
        owner = getattr(instance, name, None)
        if isinstance(owner, models.Model):
            return tenant_of(owner)
    return None
