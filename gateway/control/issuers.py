"""Issuers of JSON Web Tokens: what their rows may say, and the section `issuers` from which every worker judges."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec
import redis
from django.conf import settings
from django.core.exceptions import ValidationError

from anumate.lib.sealing import seal
from gateway.models import JwtIssuer
from gateway.proxy.jwks import Unusable, read_keys
from registry.live import sections
from registry.live.addresses import refusal
from registry.live.issuers import ASYMMETRIC, SEALING_LABEL, SECTION, SYMMETRIC, IssuerRecord, IssuerSection
from registry.models import Revision

LEAST_SECRET: Final = 32
"""Characters; RFC 7518 §3.2 wants a key as long as the hash."""
ALGORITHMS: Final = (*ASYMMETRIC, *SYMMETRIC)


def sealed(secret: str) -> str:
    """The secret as it is kept.

    Raises:
        ValidationError: it is too short to be one.
    """
    if len(secret) < LEAST_SECRET:
        raise ValidationError(f"A secret has at least {LEAST_SECRET} characters.")
    return seal(settings.API_KEY_PEPPER, SEALING_LABEL, secret)


def check_issuer(row: JwtIssuer) -> None:
    """What its fields mean for each other.

    Raises:
        ValidationError: by field.
    """
    if not row.issuer or not row.audiences:
        raise ValidationError({"audiences": "A token has to be from an issuer and for an audience."})
    sources = [name for name in ("jwks_url", "keys", "sealed_secret") if getattr(row, name)]
    if len(sources) != 1:
        raise ValidationError({"jwks_url": "Give one of these: an address of keys, the keys, or a secret."})
    allowed = SYMMETRIC if sources == ["sealed_secret"] else ASYMMETRIC
    if not row.algorithms or not set(row.algorithms) <= set(allowed):
        # Else a public key could pass for a secret (RFC 8725 §2.1).
        raise ValidationError({"algorithms": f"With that, name one or more of {', '.join(allowed)}."})
    if row.jwks_url:
        _check_address(row.jwks_url)
    elif row.keys:
        try:
            read_keys(row.keys)
        except Unusable as error:
            raise ValidationError({"keys": str(error)}) from None


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname if parts.scheme in ("http", "https") and not parts.username else None
    except ValueError:
        host = None
    if not host:
        raise ValidationError({"jwks_url": "This is no address like https://login.example.com/jwks.json."})
    if why := refusal(host):
        raise ValidationError({"jwks_url": why})


def section() -> IssuerSection:
    """Those that are enabled, of all tenants that are active."""
    rows = JwtIssuer.objects.filter(enabled=True, tenant__active=True).select_related("tenant").order_by("pk")
    return IssuerSection(tuple(map(_record, rows)))


def publish_issuers(client: redis.Redis) -> bool:
    """Put what the rows say before every worker; whether that is something new.

    Raises:
        redis.ConnectionError and its like: the store is away; beat tries again.
    """
    revision, _ = Revision.objects.get_or_create(pk=1)
    body = msgspec.json.encode(section())
    return sections.publish(client, SECTION, origin=str(revision.origin), revision=revision.number, body=body)


def _record(row: JwtIssuer) -> IssuerRecord:
    return IssuerRecord(
        tenant=row.tenant.name,
        name=row.name,
        issuer=row.issuer,
        audiences=tuple(row.audiences),
        algorithms=tuple(row.algorithms),
        jwks_url=row.jwks_url,
        keys=row.keys,
        sealed_secret=row.sealed_secret,
        leeway=row.leeway,
        required_claims=tuple(row.required_claims),
        subject_claim=row.subject_claim,
        scope_claim=row.scope_claim,
        grants_invoke=row.grants_invoke,
    )
