"""JWT issuers as rows: what they may say, that their secret stays one, and that every worker hears of them."""

from __future__ import annotations

import time
from typing import Any

import jwt
import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings

from anumate.lib.sealing import unseal
from gateway.control.issuers import publish_issuers, section
from gateway.forms import JwtIssuerForm
from gateway.models import JwtIssuer
from registry.live.issuers import SEALING_LABEL, IssuerSection
from registry.live.sections import SECTIONS
from registry.models import AuditEntry
from tests.api import api, code, tenant
from tests.gateway.proxy.test_tokens import pem

pytestmark = pytest.mark.django_db

SECRET = "a secret that is thirty-two characters long, or more"
LOGIN: dict[str, Any] = {
    "name": "login",
    "issuer": "https://login.example.com",
    "audiences": ["orders"],
    "algorithms": ["RS256"],
    "jwks_url": "https://login.example.com/jwks.json",
}
HS: dict[str, Any] = {**LOGIN, "algorithms": ["HS256"], "jwks_url": "", "secret": SECRET}


def test_an_issuer_is_made_read_changed_and_taken_away() -> None:
    caller = api()
    made = caller.post("/v1/jwt-issuers", LOGIN, format="json")
    assert made.status_code == 201, made.content
    assert made.json()["leeway"] == 60
    assert caller.get("/v1/jwt-issuers/login").json() == made.json()
    assert caller.patch("/v1/jwt-issuers/login", {"leeway": 5}, format="json").json()["leeway"] == 5
    assert [record.leeway for record in section().issuers] == [5]
    assert caller.patch("/v1/jwt-issuers/login", {"enabled": False}, format="json").status_code == 200
    assert section().issuers == ()
    assert caller.delete("/v1/jwt-issuers/login").status_code == 204


def test_a_request_with_a_token_is_explained_by_the_issuers_that_there_are(caplog: pytest.LogCaptureFixture) -> None:
    caller = api()
    caller.post("/v1/jwt-issuers", HS, format="json")
    caller.post("/v1/routes", {"name": "orders", "path": "/", "service": "orders", "auth": {"methods": ["jwt"]}})
    said = {"iss": LOGIN["issuer"], "aud": "orders", "sub": "ann", "exp": time.time() + 60, "more": "x" * 2000}
    token = jwt.encode(said, SECRET, "HS256")
    asked = {"path": "/", "headers": [{"name": "Authorization", "value": f"Bearer {token}"}]}

    def explained() -> Any:
        found = caller.post("/v1/routes/explain", asked).json()
        assert token not in str(found)
        return found

    found = explained()
    assert found["admission"] | {"methods": [], "scopes": []} == {
        "auth_required": True,
        "methods": [],
        "scopes": [],
        "admitted": True,
        "sentence": "The token of ann from https://login.example.com may use the route.",
        "code": None,
        "consumer": "ann",
        "issuer": "https://login.example.com",
    }
    assert found["status"] is None
    caller.patch("/v1/jwt-issuers/login", {"audiences": ["payments"]}, format="json")
    found = explained()
    assert (found["status"], found["code"]) == (401, "api_key_invalid")
    assert found["admission"]["sentence"] == "The token is for somebody else (aud)."
    caller.patch("/v1/jwt-issuers/login", {"enabled": False}, format="json")
    assert explained()["admission"]["sentence"] == "The token is from an issuer that is not believed here."
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"audiences": []}, "audiences"),
        ({"jwks_url": ""}, "jwks_url"),
        ({"jwks_url": "ftp://login"}, "jwks_url"),
        ({"jwks_url": "http://169.254.169.254/keys"}, "jwks_url"),
        ({"secret": SECRET}, "jwks_url"),
        ({"jwks_url": "", "keys": "nonsense"}, "keys"),
        ({"jwks_url": "", "algorithms": ["HS256"], "secret": "short"}, "secret"),
        ({"leeway": 301}, "leeway"),
    ],
)
def test_what_could_not_prove_a_token_is_refused(change: dict[str, Any], field: str) -> None:
    answer = api().post("/v1/jwt-issuers", {**LOGIN, **change}, format="json")
    assert code(answer) == (422, "validation_failed")
    assert field in str(answer.json()["errors"])
    assert not JwtIssuer.objects.exists()


def test_public_keys_may_be_given_themselves() -> None:
    keys = pem(ec.generate_private_key(ec.SECP256R1()))
    body = {**LOGIN, "jwks_url": "", "algorithms": ["ES256"], "keys": keys}
    assert api().post("/v1/jwt-issuers", body, format="json").status_code == 201


def test_a_secret_is_sealed_and_shown_nowhere_and_stays_when_it_is_left_out() -> None:
    caller = api()
    made = caller.post("/v1/jwt-issuers", HS, format="json")
    assert made.status_code == 201, made.content
    row = JwtIssuer.objects.get()
    assert unseal(settings.API_KEY_PEPPER, SEALING_LABEL, row.sealed_secret) == SECRET
    told = [made.content.decode(), caller.get("/v1/jwt-issuers").content.decode(), str(section())]
    told += [str(entry.__dict__) for entry in AuditEntry.objects.all()]
    assert not [text for text in told if SECRET in text]
    assert caller.patch("/v1/jwt-issuers/login", {"leeway": 1}, format="json").status_code == 200
    assert JwtIssuer.objects.get().sealed_secret == row.sealed_secret


def test_issuers_are_their_tenants() -> None:
    tenant("acme")
    api().post("/v1/jwt-issuers", LOGIN, format="json")
    assert api("acme").get("/v1/jwt-issuers/login").status_code == 404
    assert api("acme").post("/v1/jwt-issuers", LOGIN, format="json").status_code == 201
    assert {record.tenant for record in section().issuers} == {"default", "acme"}
    assert api(scopes=("gateway:read",)).post("/v1/jwt-issuers", LOGIN, format="json").status_code == 403


def test_they_are_published_once_until_they_change(store: redis.Redis) -> None:
    api().post("/v1/jwt-issuers", LOGIN, format="json")
    publish_issuers(store)
    assert not publish_issuers(store)
    body: Any = store.hget(SECTIONS, "issuers:body")
    assert msgspec.json.decode(body, type=IssuerSection) == section()


def test_the_admins_form_says_where_the_mistake_is_and_keeps_the_secret() -> None:
    typed = {"tenant": tenant("default").pk, **HS, "audiences": "orders", "leeway": 60, "subject_claim": "sub"}
    form = JwtIssuerForm({**typed, "algorithms": ["RS256"]})
    assert not form.is_valid()
    assert list(form.errors) == ["algorithms"]
    form = JwtIssuerForm(typed)
    assert form.is_valid(), form.errors
    row = form.save()
    again = JwtIssuerForm({**typed, "secret": ""}, instance=row)
    assert again.is_valid(), again.errors
    assert again.save().sealed_secret == row.sealed_secret
    assert SECRET not in again.as_p()
