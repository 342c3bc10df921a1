"""Members of a tenant: whoever has an owner keeps one, since an owner alone lets people in."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser

from anumate.lib.problem import Problem
from registry.models import Member
from registry.services.changes import Actor, change


def is_last_owner(member: Member) -> bool:
    """Whether, as it is stored, nobody else who may log in owns the tenant."""
    stored = Member.objects.filter(pk=member.pk).first()
    if stored is None or stored.role != Member.Role.OWNER:
        return False
    others = Member.objects.filter(tenant=stored.tenant_id, role=Member.Role.OWNER, user__is_active=True)
    return not others.exclude(pk=stored.pk).exists()


def owns_alone(user: AbstractBaseUser) -> bool:
    """Whether a tenant would be without an owner if this person went."""
    return any(is_last_owner(member) for member in Member.objects.filter(user=user.pk, role=Member.Role.OWNER))


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
