"""What the admin of every app is made of: rows confined to a person's tenants, rights by role, edits that are audited.

Django's own permissions are not asked. A superuser may do everything; everybody else has what their roles give them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from registry.models import Member, Tenant
from registry.requests import request_id
from registry.services.changes import Actor, change, tenant_of
from registry.services.tenants import DEFAULT

_RANK = {Member.Role.VIEWER: 1, Member.Role.OPERATOR: 2, Member.Role.OWNER: 3}


def roles_of(request: HttpRequest) -> dict[int, str]:
    """The person's role by tenant id; asked once for each request."""
    known: dict[int, str] | None = getattr(request, "anumate_roles", None)
    if known is None:
        rows = Member.objects.filter(user=request.user.pk, tenant__active=True)
        known = dict(rows.values_list("tenant_id", "role"))
        request.anumate_roles = known  # type: ignore[attr-defined]
    return known


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and request.user.is_superuser)


def tenants_with(request: HttpRequest, role: str) -> models.QuerySet[Tenant]:
    """The tenants where the person has this role, or a higher one."""
    if is_superuser(request):
        return Tenant.objects.all()
    able = [tenant for tenant, own in roles_of(request).items() if _RANK[own] >= _RANK[role]]  # type: ignore[index]
    return Tenant.objects.filter(pk__in=able)


def actor_of(request: HttpRequest) -> Actor:
    return Actor.person(request.user, request_id(request))


class TenantFilter(admin.SimpleListFilter):
    """By tenant; offers only those that the person may see, and only when there is a choice."""

    title = "tenant"
    parameter_name = "tenant"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = tenants_with(request, Member.Role.VIEWER).values_list("name", flat=True)
        return [(name, name) for name in names]

    def has_output(self) -> bool:
        return len(self.lookup_choices) > 1

    def queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> models.QuerySet[Any]:
        path = tenant_path_of(queryset.model)
        return queryset.filter(**{f"{path}__name": self.value()}) if self.value() else queryset


class TenantAdmin(ModelAdmin):  # type: ignore[misc]  # unfold has no types
    """Rows of the person's tenants. Viewers look, operators write; a subclass may ask for more."""

    tenant_path: ClassVar[str] = "tenant"
    view_role: ClassVar[str] = Member.Role.VIEWER
    write_role: ClassVar[str] = Member.Role.OPERATOR
    list_filter_submit = False
    warn_unsaved_form = True

    # What may be seen and done

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: models.QuerySet[Any] = super().get_queryset(request)
        if is_superuser(request):
            return rows
        return rows.filter(**{f"{self.tenant_path}__in": tenants_with(request, self.view_role)})

    def _allowed(self, request: HttpRequest, role: str, obj: models.Model | None) -> bool:
        if is_superuser(request):
            return True
        roles = roles_of(request)
        if obj is not None and obj.pk is not None:
            tenant = tenant_of(obj)
            own = [roles[tenant.pk]] if tenant is not None and tenant.pk in roles else []
        else:
            own = list(roles.values())
        return any(_RANK[each] >= _RANK[role] for each in own)  # type: ignore[index]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._allowed(request, self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._allowed(request, self.write_role, None)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._allowed(request, self.write_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._allowed(request, self.write_role, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Who may delete a row may delete what is part of it; rows that are protected still stand in the way."""
        listed, counts, _, protected = super().get_deleted_objects(objs, request)
        return listed, counts, set(), protected

    # Forms

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """A row never moves to another tenant."""
        fixed = ["tenant"] if obj is not None and self.tenant_path == "tenant" else []
        return [*super().get_readonly_fields(request, obj), *fixed]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        tenants = tenants_with(request, self.write_role)
        own = tenants.filter(name=DEFAULT).first() or tenants.first()
        return {"tenant": own.pk if own else None, **initial}

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Only rows of tenants where the person may write are taken, whatever a browser sends."""
        if "queryset" not in options:
            options["queryset"] = writable(request, db_field.remote_field.model, self.write_role)
        return super().formfield_for_foreignkey(db_field, request, **options)

    # Writing

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        """The row is written in `save_related`, in one audited change with the rows that are part of it."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Iterable[Any], change: bool) -> None:
        with recorded(request, "changed" if change else "created", form.instance):
            self.write(request, form.instance)
            super().save_related(request, form, formsets, change)

    def write(self, request: HttpRequest, obj: Any) -> None:
        obj.save()

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        with recorded(request, "deleted", obj):
            obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        """Django asks only whether some rows may be deleted; here each is asked about."""
        rows = list(queryset)
        if not all(self.has_delete_permission(request, row) for row in rows):
            raise PermissionDenied("Some of these are not yours to delete. Nothing was deleted.")
        with transaction.atomic():
            for row in rows:
                self.delete_model(request, row)


def recorded(request: HttpRequest, action: str, obj: models.Model) -> Any:
    return change(actor_of(request), action, obj)


def writable(request: HttpRequest, model: type[models.Model], role: str) -> models.QuerySet[Any]:
    """The rows of a model that stand in tenants where the person has the role."""
    rows: models.QuerySet[Any] = model._default_manager.all()
    if is_superuser(request):
        return rows
    if model is Tenant:
        return tenants_with(request, role)
    return rows.filter(**{f"{tenant_path_of(model)}__in": tenants_with(request, role)})


def tenant_path_of(model: type[models.Model]) -> str:
    """The path from the model's rows to their tenant, as its admin says."""
    return cast("TenantAdmin", admin.site.get_model_admin(model)).tenant_path


class ReadOnlyAdmin(TenantAdmin):
    """What machines write and people only look at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class PartInline(TabularInline):  # type: ignore[misc]
    """Rows that are part of their parent: who may write the parent may write them."""

    extra = 0

    def _parent(self) -> TenantAdmin:
        return cast("TenantAdmin", admin.site.get_model_admin(self.parent_model))

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._parent().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._parent().has_change_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._parent().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self._parent().has_change_permission(request, obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        options.setdefault("queryset", writable(request, db_field.remote_field.model, self._parent().write_role))
        return super().formfield_for_foreignkey(db_field, request, **options)


def same_tenant(form: Any, *names: str) -> None:
    """Complain of chosen rows that belong to another tenant than the form's."""
    tenant = form.cleaned_data.get("tenant") or getattr(form.instance, "tenant", None)
    for name in names:
        chosen = form.cleaned_data.get(name)
        if chosen is not None and tenant is not None and tenant_of(chosen) != tenant:
            form.add_error(name, ValidationError(f"{chosen} belongs to another tenant."))
