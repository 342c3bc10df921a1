"""What tests of the API share: tenants, keys and clients that carry them."""

from __future__ import annotations

import re
from typing import Any

from django.urls import Resolver404, resolve
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from registry.live.keys import SCOPES
from registry.models import Tenant
from registry.services.changes import SYSTEM
from registry.services.keys import create_key


def tenant(name: str = "default") -> Tenant:
    return Tenant.objects.get_or_create(name=name)[0]


def secret(of: str = "default", scopes: tuple[str, ...] = SCOPES, **more: Any) -> str:
    """A new key of the tenant."""
    return create_key(SYSTEM, tenant(of), "test key", scopes, **more).secret


def api(of: str = "default", scopes: tuple[str, ...] = SCOPES) -> APIClient:
    """A client whose requests carry a new key."""
    client = APIClient()
    client.credentials(HTTP_X_API_KEY=secret(of, scopes))
    return client


def code(response: Any) -> tuple[int, str]:
    """Status and code of a refusal, after a look at its form."""
    body = response.json()
    assert response["Content-Type"] == "application/problem+json"
    assert body["status"] == response.status_code
    assert body["request_id"] == response["X-Request-ID"]
    return response.status_code, body["code"]


def pointers(response: Any) -> list[str]:
    """The places of a body that a refusal points to."""
    return [error["pointer"] for error in response.json()["errors"]]


def documented(*, lane: bool) -> list[tuple[str, str]]:
    """Method and path of every operation in the OpenAPI document that the lane, or else Django, answers."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    return [
        (method, path)
        for path, operations in schema["paths"].items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"} and _lanes(path) is lane
    ]


def any_path(path: str) -> str:
    """A documented path with something in each of its places."""
    return re.sub(r"{\w+}", "x", path.replace("{action}", "open"))


def _lanes(path: str) -> bool:
    try:
        resolve(any_path(path))
    except Resolver404:
        return True
    return False
