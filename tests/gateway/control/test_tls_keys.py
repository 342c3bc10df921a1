"""The private key of an upstream: taken, kept sealed, used, and never shown."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from anumate.lib.sealing import unseal
from gateway.control.compile import compile_table
from gateway.forms import UpstreamForm
from gateway.models import Upstream
from gateway.proxy.tls import TLS_KEYS
from registry.models import AuditEntry
from tests.api import api
from tests.gateway.proxy.test_upstream_tls import Authority

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def body(authority: Authority, **fields: Any) -> dict[str, Any]:
    ours = authority.identity("gateway")
    return {
        "service": "orders",
        "load_balancing": "round_robin",
        "breaker_policy": None,
        "tls": {"certificate": ours.certificate},
        "tls_key": ours.key,
        **fields,
    }


def test_it_is_sealed_and_in_no_answer_no_record_and_no_plain_table(authority: Authority) -> None:
    sent, caller = body(authority), api()
    answer = caller.post("/v1/upstreams", sent, format="json")
    assert answer.status_code == 201, answer.content
    row = Upstream.objects.get()
    assert unseal(settings.API_KEY_PEPPER, TLS_KEYS, row.tls_key) == sent["tls_key"].strip()
    secret = sent["tls_key"].splitlines()[1]
    told = [answer.content.decode(), caller.get("/v1/upstreams/orders").content.decode(), row.tls_key]
    told += [str(event.__dict__) for event in AuditEntry.objects.all()]
    assert not [text for text in told if secret in text]
    assert "tls_key" not in answer.json()
    (upstream,) = compile_table(1).table.upstreams
    assert upstream.tls_key == row.tls_key


def test_it_stays_when_it_is_left_out_and_is_refused_when_it_does_not_fit(authority: Authority) -> None:
    caller = api()
    caller.post("/v1/upstreams", body(authority), format="json")
    assert caller.patch("/v1/upstreams/orders", {"slow_start_seconds": 3}, format="json").status_code == 200
    assert Upstream.objects.get().tls_key
    other = authority.identity("other")
    wrong: dict[str, Any]
    for wrong in ({"tls_key": other.key}, {"tls_key": "nonsense"}, {"tls_key": ""}, {"tls": {}}):
        answer = caller.patch("/v1/upstreams/orders", wrong, format="json")
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), wrong


def test_the_admins_form_keeps_it_too(authority: Authority) -> None:
    caller = api()
    caller.post("/v1/upstreams", body(authority), format="json")
    row = Upstream.objects.get()
    before = row.tls_key
    form = UpstreamForm(
        {
            "load_balancing": "random",
            "zone": "off",
            "slow_start_seconds": 0,
            "panic_threshold": 0,
            "concurrent": 0,
            "service": row.service_id,
            "tls__verify": "on",
            "tls__certificate": row.tls["certificate"],
        },
        instance=row,
    )
    assert form.is_valid(), form.errors
    assert form.instance.tls_key == before
    assert "PRIVATE KEY" not in form.as_p()
