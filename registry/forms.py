"""Form fields that make lists easy to type by hand, and the forms of the registry's admin."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.forms import ActionForm, UserChangeForm
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from registry.models import ApiKey, Member, Tenant
from registry.models.access import check_network, label
from registry.scopes import MEANINGS
from registry.services.keys import may_grant
from registry.services.members import is_last_owner, may_log_in, owns_alone
from registry.services.tenants import DEFAULT


class WordsField(forms.CharField):
    """A list of words, one a line or separated by commas. `rule` judges each and raises ValidationError."""

    def __init__(self, *, rule: Callable[[str], Any] | None = None, most: int = 100, **options: Any) -> None:
        self.rule = rule
        self.most = most
        options.setdefault("required", False)
        super().__init__(widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}), **options)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        words = [word for word in re.split(r"[\s,]+", value or "") if word]
        return list(dict.fromkeys(words))

    def validate(self, value: Any) -> None:
        super().validate(value)
        if len(value) > self.most:
            raise ValidationError(f"At most {self.most} are allowed.")
        errors: list[str] = []
        for word in value:
            try:
                if self.rule:
                    self.rule(word)
            except ValidationError as error:
                errors += error.messages
        if errors:
            raise ValidationError(errors)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool((initial or []) != self.to_python(data))


class PairsField(forms.CharField):
    """A list of names with values, written `name: value`, one a line."""

    def __init__(self, *, rule: Callable[[str, str], Any], most: int = 100, **options: Any) -> None:
        self.rule = rule
        self.most = most
        options.setdefault("required", False)
        super().__init__(widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}), **options)

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return "\n".join(f"{pair['name']}: {pair['value']}" for pair in value)

    def to_python(self, value: Any) -> Any:
        pairs = []
        for line in (value or "").splitlines():
            name, colon, text = line.partition(":")
            if line.strip() and not colon:
                raise ValidationError(f"{line.strip()!r} has no colon. Write it as name: value.")
            if line.strip():
                pairs.append({"name": name.strip(), "value": text.strip()})
        return pairs

    def validate(self, value: Any) -> None:
        super().validate(value)
        if len(value) > self.most:
            raise ValidationError(f"At most {self.most} are allowed.")
        for pair in value:
            self.rule(pair["name"], pair["value"])

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool((initial or []) != self.to_python(data))
        except ValidationError:
            return True


class ScopesField(forms.MultipleChoiceField):
    """Scopes to tick, each with what it means."""

    def __init__(self, **options: Any) -> None:
        choices = [(scope, f"{scope}: {meaning}") for scope, meaning in MEANINGS.items()]
        super().__init__(choices=choices, widget=UnfoldAdminCheckboxSelectMultipleWidget, **options)


class ReasonActionForm(ActionForm):  # type: ignore[misc]  # unfold has no types
    """The bar of actions, with room for the reason."""

    reason = forms.CharField(
        label="",
        required=False,
        max_length=500,
        widget=UnfoldAdminTextInputWidget(
            attrs={"placeholder": "Reason (kept in the audit)", "aria-label": "Reason", "x-show": "action"}
        ),
    )


class StateActionForm(ReasonActionForm):
    """The bar of actions by which operators speak: with a reason, an end and a weight."""

    expires_at = forms.CharField(
        label="",
        required=False,
        widget=UnfoldAdminTextInputWidget(
            attrs={
                "type": "datetime-local",
                "title": "Until (UTC). Empty: until somebody changes it.",
                "aria-label": "Until (UTC)",
                "x-show": "action",
            }
        ),
    )
    weight = forms.CharField(
        label="",
        required=False,
        widget=UnfoldAdminTextInputWidget(
            attrs={
                "type": "number",
                "min": "0",
                "max": "1000",
                "placeholder": "Weight",
                "title": "In place of the registered weight. Empty: the registered one.",
                "aria-label": "Weight",
                "x-show": "action",
            }
        ),
    )


class WordForm(forms.Form):
    """Judges what the bar of actions sent: an operator's reason, end and weight."""

    reason = forms.CharField(required=False, max_length=500)
    expires_at = forms.DateTimeField(required=False, label="Until")
    weight = forms.IntegerField(required=False, min_value=0, max_value=1000, label="Weight")

    def clean_expires_at(self) -> datetime | None:
        ends: datetime | None = self.cleaned_data["expires_at"]
        if ends is not None and ends <= timezone.now():
            raise ValidationError("This moment has passed.")
        return ends

    def complaint(self) -> str:
        """What is wrong with it, in one line."""
        return " ".join(
            f"{self.fields[name].label or name}: {' '.join(map(str, said))}" for name, said in self.errors.items()
        )


class TenantForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    class Meta:
        model = Tenant
        fields: ClassVar = ["name", "title", "active", "max_services", "max_instances", "max_requests_per_second"]

    def clean_active(self) -> bool:
        active: bool = self.cleaned_data["active"]
        if not active and self.instance.name == DEFAULT:
            raise ValidationError("Tenant default is needed and cannot be switched off.")
        return active


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    scopes = ScopesField(help_text="What the key may do. Give it no more than it needs.")
    routes = WordsField(rule=label, help_text="Names of the gateway's routes it is good for. Empty: all.")
    networks = WordsField(rule=check_network, help_text="Where it may come from, like 10.0.0.0/8. Empty: anywhere.")
    platform = False
    """Whether the person runs the installation; the admin says so for each request."""

    class Meta:
        model = ApiKey
        fields: ClassVar = ["tenant", "name", "scopes", "routes", "networks", "rate_limit_policy", "expires_at"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        tenant = cleaned.get("tenant") or (self.instance.tenant if self.instance.pk else None)
        if tenant is not None and not may_grant(tenant, cleaned.get("scopes", ()), platform=self.platform):
            self.add_error("scopes", "Only who runs the installation gives scope admin to a key of this tenant.")
        return cleaned


class PersonForm(UserChangeForm):  # type: ignore[misc]  # unfold has no types
    """Who may log in. The last owner of a tenant keeps both rights that it takes."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        lost = [name for name in ("is_active", "is_staff") if not cleaned.get(name, True)]
        if lost and may_log_in(self.instance) and owns_alone(self.instance):
            self.add_error(lost[0], "This is the last owner of a tenant. Make somebody else an owner first.")
        return cleaned


class MemberForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """Names a person by their user name: members of one tenant are not shown everybody else's."""

    username = forms.CharField(
        label="User name", max_length=150, widget=UnfoldAdminTextInputWidget, help_text="Whom to let in."
    )

    class Meta:
        model = Member
        fields: ClassVar = ["tenant", "role"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.pk and "username" in self.fields:
            self.fields["username"].initial = self.instance.user.get_username()
            self.fields["username"].disabled = True

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        user = User.objects.filter(username=name, is_active=True, is_staff=True).first()
        if user is None:
            raise ValidationError("There is no active member of staff with this user name.")
        if not self.instance.pk:
            self.instance.user = user
        return name

    def clean_role(self) -> str:
        role: str = self.cleaned_data["role"]
        if self.instance.pk and role != Member.Role.OWNER and is_last_owner(self.instance):
            raise ValidationError("This is the last owner of the tenant. Make somebody else an owner first.")
        return role

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        tenant, user = cleaned.get("tenant"), self.instance.user_id
        if not self.instance.pk and tenant and user and Member.objects.filter(tenant=tenant, user=user).exists():
            self.add_error("username", "This person is a member already.")
        return cleaned
