"""Issuers of JSON Web Tokens (RFC 7519), as every gateway worker knows them: the section `issuers`."""

from __future__ import annotations

from typing import Final

import msgspec

SECTION: Final = "issuers"
SEALING_LABEL: Final = "jwt-issuer-secret"
SYMMETRIC: Final = ("HS256", "HS384", "HS512")
ASYMMETRIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)


class IssuerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose tokens a tenant believes, and how they are proved.

    One of three proves them: `jwks_url`, `keys` (a JWKS document or PEM public keys) or `sealed_secret`. `algorithms`
    are those that count, whatever a token says of itself. `leeway` is the difference of clocks in seconds.
    """

    tenant: str
    name: str
    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    jwks_url: str = ""
    keys: str = ""
    sealed_secret: str = ""
    leeway: int = 60
    required_claims: tuple[str, ...] = ()
    subject_claim: str = "sub"
    scope_claim: str = ""
    grants_invoke: bool = True


class IssuerSection(msgspec.Struct, frozen=True):
    """Body of the section `issuers`."""

    issuers: tuple[IssuerRecord, ...] = ()
