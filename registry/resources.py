"""The one way a configuration resource is listed, read and written; the gateway's resources are made of it too."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models, transaction
from rest_framework import viewsets
from rest_framework.serializers import BaseSerializer

from registry.auth import Caller, caller_of
from registry.services.changes import change


class TenantResource(viewsets.ModelViewSet[Any]):
    """Rows of the caller's tenant, addressed by name. Another tenant's are not found.

    Every write is one transaction with its audit row. A subclass says in `fill` how fields become a row.
    """

    owner: ClassVar[str] = "tenant"
    """The path from a row to its tenant."""
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    scopes: ClassVar[dict[str, str]]

    @property
    def caller(self) -> Caller:
        return caller_of(self.request)

    def get_queryset(self) -> models.QuerySet[Any]:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):  # the schema is drawn without a caller
            return rows.none()
        return rows.filter(**{self.owner: self.caller.tenant})

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        serializer.instance = self.store("created", self.new(), serializer.validated_data)

    def perform_update(self, serializer: BaseSerializer[Any]) -> None:
        serializer.instance = self.store("changed", serializer.instance, serializer.validated_data)

    def perform_destroy(self, instance: Any) -> None:
        with change(self.caller.actor, "deleted", instance):
            instance.delete()

    def store(self, action: str, row: Any, fields: dict[str, Any]) -> Any:
        with transaction.atomic():
            self.prepare(row, fields)
            with change(self.caller.actor, action, row):
                self.fill(row, fields)
        return self.get_queryset().get(pk=row.pk)

    def new(self) -> models.Model:
        """An empty row of the caller's tenant."""
        model: type[models.Model] = self.get_queryset().model
        return model(tenant=self.caller.tenant)

    def prepare(self, row: Any, fields: dict[str, Any]) -> None:
        """What must be there before the row."""

    def fill(self, row: Any, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(row, name, value)
        row.save()
