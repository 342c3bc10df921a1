"""Members of a tenant: whoever has an owner keeps one, since an owner alone lets people in."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, User
from django.db import transaction

from anumate.lib.problem import Problem
from registry.models import Member
from registry.services.changes import Actor, change


def is_last_owner(member: Member) -> bool:
    """Whether, as it is stored, nobody else who may log in owns the tenant."""
    stored = Member.objects.filter(pk=member.pk).first()
    if stored is None or stored.role != Member.Role.OWNER:
        return False
    others = Member.objects.filter(tenant=stored.tenant_id, role=Member.Role.OWNER).exclude(pk=stored.pk)
    return not others.filter(user__is_active=True, user__is_staff=True).exists()


def owns_alone(user: AbstractBaseUser) -> bool:
    """Whether a tenant would be without an owner if this person went, or could not log in."""
    return any(is_last_owner(member) for member in Member.objects.filter(user=user.pk, role=Member.Role.OWNER))


def may_log_in(user: User) -> bool:
    """Whether the person gets into the admin, where owners let others in."""
    return user.is_active and user.is_staff


def save_person(person: User) -> None:
    """Store what was changed of a person.

    Raises:
        Problem: conflict, when they could log in no longer and are the last owner of a tenant.
    """
    with transaction.atomic():
        stored = User.objects.filter(pk=person.pk).first()
        if stored is not None and may_log_in(stored) and not may_log_in(person):
            _keep_owners(person)
        person.save()


def delete_person(person: User) -> None:
    """Delete a person and their memberships.

    Raises:
        Problem: conflict, when this is the last owner of a tenant.
    """
    with transaction.atomic():
        _keep_owners(person)
        person.delete()


def _keep_owners(person: User) -> None:
    for member in Member.objects.filter(user=person.pk, role=Member.Role.OWNER).order_by("tenant"):
        keep_an_owner(member)


def remove_member(actor: Actor, member: Member, *, reason: str = "") -> None:
    """Show a person out.

    Raises:
        Problem: conflict, when this is the last owner.
    """
    with change(actor, "deleted", member, reason=reason):
        keep_an_owner(member)
        member.delete()


def keep_an_owner(member: Member) -> None:
    """Asked, in the transaction of the change, before a member goes or gets another role.

    Raises:
        Problem: conflict, when this is the last owner.
    """
    # Two owners who remove each other at one moment: the second finds the row of the first gone.
    list(Member.objects.select_for_update().filter(tenant=member.tenant_id, role=Member.Role.OWNER))
    if is_last_owner(member):
        raise Problem("conflict", "This is the last owner of the tenant. Make somebody else an owner first.")
