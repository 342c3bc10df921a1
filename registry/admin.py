"""The registry for people: tenants and who may, and the audit. `service_admin` has services, instances and zones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserCreationForm

from anumate.lib.problem import Problem
from registry import service_admin  # noqa: F401  (registers its pages)
from registry.forms import ApiKeyForm, MemberForm, PersonForm, ReasonActionForm, TenantForm
from registry.models import ApiKey, AuditEntry, Member, Revision, Tenant, TenantHost
from registry.services import keys, members, tenants
from registry.tenant_admin import PartInline, ReadOnlyAdmin, TenantAdmin, TenantFilter, actor_of, is_superuser


class TenantHostInline(PartInline):
    model = TenantHost
    verbose_name_plural = "host names: requests for them belong to this tenant"


@admin.register(Tenant)
class TenantPage(TenantAdmin):
    tenant_path = "pk"
    form = TenantForm
    list_display: ClassVar = ["name", "title", "active", "owned_hosts", "created_at"]
    list_filter: ClassVar = ["active"]
    search_fields: ClassVar = ["name", "title", "hosts__host"]
    fields: ClassVar = ["name", "title", "active", "max_services", "max_instances", "max_requests_per_second"]
    inlines: ClassVar = [TenantHostInline]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("hosts")

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        return ["name"] if obj is not None else []

    @display(description="Host names")
    def owned_hosts(self, tenant: Tenant) -> str:
        return ", ".join(each.host for each in tenant.hosts.all()) or "–"

    # Tenants own host names, so only who runs the installation hands them out.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return is_superuser(request) and getattr(obj, "name", "") != tenants.DEFAULT


@admin.register(Member)
class MemberAdmin(TenantAdmin):
    view_role = Member.Role.OWNER
    write_role = Member.Role.OWNER
    form = MemberForm
    list_display: ClassVar = ["user", "tenant", "role", "created_at"]
    list_filter: ClassVar = [TenantFilter, "role"]
    list_select_related: ClassVar = ["user", "tenant"]
    search_fields: ClassVar = ["user__username", "user__email"]
    fields: ClassVar = ["tenant", "username", "role"]

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        last = isinstance(obj, Member) and members.is_last_owner(obj)
        return not last and super().has_delete_permission(request, obj)

    def write(self, request: HttpRequest, obj: Any) -> None:
        """The form has asked before; in between, another owner may have gone."""
        if obj.pk and obj.role != Member.Role.OWNER:
            with _denied():
                members.keep_an_owner(obj)
        super().write(request, obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with _denied():
            members.remove_member(actor_of(request), obj)


@contextmanager
def _denied() -> Iterator[None]:
    try:
        yield
    except Problem as refused:
        raise PermissionDenied(refused.detail) from None


@admin.register(ApiKey)
class ApiKeyAdmin(TenantAdmin):
    """Keys are made and revoked, never deleted. The answer that makes one is the only place that shows it."""

    view_role = Member.Role.OWNER
    write_role = Member.Role.OWNER
    form = ApiKeyForm
    list_display: ClassVar = ["name", "public_id", "tenant", "status", "shown_scopes", "expires_at", "last_used_at"]
    list_filter: ClassVar = [TenantFilter, ("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["name", "public_id"]
    actions: ClassVar = ["revoke"]
    action_form = ReasonActionForm
    fields: ClassVar = ["tenant", "name", "scopes", "routes", "networks", "rate_limit_policy", "expires_at"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change, **options)
        form.platform = is_superuser(request)  # a class of its own for each request
        return form

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        told = ["public_id", "created_at", "last_used_at", "revoked_at"]
        return [*super().get_fields(request, obj), *(told if obj is not None else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        told = ["public_id", "created_at", "last_used_at", "revoked_at"]
        return [*super().get_readonly_fields(request, obj), *(told if obj is not None else [])]

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        revoked = isinstance(obj, ApiKey) and obj.revoked_at is not None
        return not revoked and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def save_related(self, request: HttpRequest, form: Any, formsets: Iterable[Any], change: bool) -> None:
        if change:
            super().save_related(request, form, formsets, change)
            return
        row = form.instance
        limits = {name: getattr(row, name) for name in ("routes", "networks", "rate_limit_policy", "expires_at")}
        made = keys.create_key(actor_of(request), row.tenant, row.name, row.scopes, **limits)
        row.pk, row.public_id = made.row.pk, made.row.public_id
        request.new_api_key = made.secret  # type: ignore[attr-defined]  # for the one page that shows it

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Shown in the answer itself: a redirect would need a place to keep the secret in between."""
        context = {
            **self.admin_site.each_context(request),
            "title": "The key is made",
            "opts": self.opts,
            "key": obj,
            "secret": request.new_api_key,  # type: ignore[attr-defined]
        }
        response = TemplateResponse(request, "registry/api_key_made.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @display(description="Status", label={"active": "success", "expired": "warning", "revoked": "danger"})
    def status(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "expired" if key.expires_at and key.expires_at <= timezone.now() else "active"

    @display(description="Scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: models.QuerySet[ApiKey]) -> None:
        reason = request.POST.get("reason", "")
        revoked = sum(keys.revoke_key(actor_of(request), key, reason=reason) for key in queryset)
        self.message_user(request, f"{revoked} revoked. They stop working within a second.", messages.SUCCESS)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display: ClassVar = ["at", "actor", "action", "object_label", "kind", "tenant", "reason"]
    list_filter: ClassVar = [TenantFilter, "actor_kind", "action", "object_type"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["actor", "object_label", "reason", "request_id"]
    date_hierarchy = "at"
    fields: ClassVar = [
        "at",
        "actor",
        "actor_kind",
        "action",
        "object_type",
        "object_label",
        "tenant",
        "reason",
        "request_id",
        "differences",
    ]
    readonly_fields: ClassVar = ["differences"]

    @display(description="Of what")
    def kind(self, entry: AuditEntry) -> str:
        return entry.object_type.rpartition(".")[2]

    @display(description="What changed")
    def differences(self, entry: AuditEntry) -> SafeString:
        before, after = entry.before or {}, entry.after or {}
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        rows = [(name, _plain(before.get(name)), _plain(after.get(name))) for name in names]
        return format_html_join("", "<div><b>{}</b>: {} → {}</div>", rows) or format_html("–")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_plain(each)}" for name, each in value.items()) + "}"
    return "–" if value is None or value == "" else str(value)


@admin.register(Revision)
class RevisionAdmin(ReadOnlyAdmin):
    """The number of the configuration, for who runs the installation."""

    tenant_path = "pk"
    list_display: ClassVar = ["number", "origin"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return Revision.objects.all() if is_superuser(request) else Revision.objects.none()

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return is_superuser(request)


# Rights come from memberships, so groups have nothing to say here.
admin.site.unregister(Group)
admin.site.unregister(User)


@admin.register(User)
class PersonAdmin(UserAdmin, ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """Who may log in. Only who runs the installation sees them."""

    form = PersonForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "is_active", "is_staff", "is_superuser", "last_login"]
    list_filter: ClassVar = ["is_active", "is_staff", "is_superuser"]
    filter_horizontal = []
    fieldsets: ClassVar = [
        (None, {"fields": ["username", "password"]}),
        ("Person", {"fields": ["first_name", "last_name", "email"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    readonly_fields: ClassVar = ["last_login", "date_joined"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return is_superuser(request) and not (isinstance(obj, User) and members.owns_alone(obj))

    # Form and rights have asked before; in between, another owner may have gone.

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        with _denied():
            members.save_person(obj)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        with _denied():
            members.delete_person(obj)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[User]) -> None:
        """One by one, and all or none: of two owners who are to go, the second may be the last."""
        with _denied(), transaction.atomic():
            for person in queryset:
                members.delete_person(person)
