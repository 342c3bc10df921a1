"""The live page itself. What it shows arrives by its websocket."""

from __future__ import annotations

from typing import Final

from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from anumate.faces.access import choose_tenant, tenants_of

# 'self' covers our websocket in today's browsers, but not in older Safari.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self' {sockets}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@require_safe
@never_cache
@staff_member_required
def live(request: HttpRequest) -> HttpResponse:
    tenants = tenants_of(request.user)
    tenant = choose_tenant(tenants, request.GET.get("tenant", ""))
    unknown = bool(tenants) and tenant is None
    context = {"tenant": tenant, "tenants": tenants, "unknown": unknown}
    response = render(request, "live.html", context, status=404 if unknown else 200)
    host = request.get_host()
    response["Content-Security-Policy"] = POLICY.format(sockets=f"ws://{host} wss://{host}")
    return response
