"""Names for shell completion, asked of the platform. A shell waits for them, so they come soon or not at all."""

from __future__ import annotations

import os
from typing import Any

import typer

from anumate_integration_service.cli.command import path
from anumate_integration_service.cli.options import DEFAULT_URL

PATIENCE = 0.5


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    return _offer(ctx, incomplete, "/v1/services", "services", "name", status="any")


def instances(ctx: typer.Context, incomplete: str) -> list[str]:
    name = str(ctx.params.get("name") or "")
    return _offer(ctx, incomplete, "/v1/services", "services", "instance_id", status="any", service_name=name)


def breakers(ctx: typer.Context, incomplete: str) -> list[str]:
    return _offer(ctx, incomplete, path("circuit-breakers"), "results", "name", page_size=1000)


def routes(ctx: typer.Context, incomplete: str) -> list[str]:
    return _offer(ctx, incomplete, path("routes"), "results", "name", page_size=1000)


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    return _offer(ctx, incomplete, path("api-keys"), "results", "public_id", page_size=1000, revoked="false")


def tenants(ctx: typer.Context, incomplete: str) -> list[str]:
    return _offer(ctx, incomplete, path("tenants"), "results", "name", page_size=1000)


def _offer(ctx: typer.Context, incomplete: str, address: str, within: str, field: str, **query: Any) -> list[str]:
    try:
        from anumate_integration_service.cli.api import Api

        with Api(*_connection(ctx), timeout=PATIENCE) as api:
            found = {str(each[field]) for each in api.get(address, **query)[within]}
    except Exception:  # whatever it is, a person in the middle of a line has no use for it
        return []
    return sorted(name for name in found if name.startswith(incomplete))


def _connection(ctx: typer.Context) -> tuple[str, str, str]:
    """What the line says already, else the environment."""
    said = {name: str(ctx.params.get(name) or "") for name in ("url", "api_key", "tenant")}
    return (
        said["url"] or os.environ.get("ANUMATE_URL") or DEFAULT_URL,
        said["api_key"] or os.environ.get("ANUMATE_API_KEY", ""),
        said["tenant"] or os.environ.get("ANUMATE_TENANT", ""),
    )
