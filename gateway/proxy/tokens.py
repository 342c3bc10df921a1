"""JSON Web Tokens (RFC 7519, RFC 8725) as a second way to prove who one is, beside API keys.

Which issuer a token is from is read from it unverified, only to choose whose keys and algorithms count. Nothing else of
it is believed before its signature is: neither `alg` nor `none` nor a key it brings along.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from anumate.lib import clock
from anumate.lib.clock import Clock
from anumate.lib.problem import Problem
from anumate.lib.sealing import Unsealable, unseal
from gateway.proxy.jwks import KeySource, Unusable
from registry.live.issuers import ASYMMETRIC, SEALING_LABEL, SYMMETRIC, IssuerRecord, IssuerSection
from registry.live.keys import KeyRecord

logger = logging.getLogger("anumate.gateway")

MAX_TOKEN: Final = 8192
REMEMBERED: Final = 10_000
TICK_SECONDS: Final = 0.5
LATEST: Final = 253_402_300_799
"""The last second of the year 9999."""
INVOKE: Final = "gateway:invoke"
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="anumate", error="invalid_token"'}


_FAMILIES: Final[dict[str, tuple[type[Any], ...]]] = {
    "RS": (RSAPublicKey,),
    "PS": (RSAPublicKey,),
    "ES": (EllipticCurvePublicKey,),
    "Ed": (Ed25519PublicKey, Ed448PublicKey),
}


class Consumer(KeyRecord, frozen=True):
    """Who comes with a token, in the shape of a key. `id` names it among all, `subject` among its issuer's.
    `expires_at` is when the token ends, leeway included.
    """

    subject: str = ""
    issuer: str = ""


class _Issuer(NamedTuple):
    record: IssuerRecord
    source: KeySource
    secret: str


class _Verified(NamedTuple):
    consumer: Consumer
    issuer: str


class Tokens:
    """Verifies tokens from memory. `take` swaps in the section `issuers`; `run` keeps the keys of issuers fresh."""

    def __init__(self, pepper: str, now: Clock = clock.monotonic) -> None:
        self._pepper = pepper
        self._now = now
        self._issuers: dict[tuple[str, str], list[_Issuer]] = {}
        self._verified: dict[tuple[str, str], _Verified] = {}

    @property
    def era(self) -> object:
        """Another object whenever issuers or their keys have changed: what was found out before may not hold then."""
        return self._verified

    def take(self, body: bytes) -> None:
        """Serve this section. An issuer that cannot be used is left out and logged; keys that were fetched stay."""
        before = {(i.record.tenant, i.record.name, i.source.url): i.source for i in self._all()}
        issuers: dict[tuple[str, str], list[_Issuer]] = {}
        for record in msgspec.json.decode(body, type=IssuerSection).issuers:
            try:
                source = before.get((record.tenant, record.name, record.jwks_url)) if record.jwks_url else None
                issuer = self._bind(record, source or KeySource(record, self._now))
            except (Unusable, Unsealable) as error:
                logger.warning("issuer %s/%s is left out: %s", record.tenant, record.name, error)
                continue
            issuers.setdefault((record.tenant, record.issuer), []).append(issuer)
        self._issuers = issuers
        self._verified = {}

    def _bind(self, record: IssuerRecord, source: KeySource) -> _Issuer:
        allowed = SYMMETRIC if record.sealed_secret else ASYMMETRIC
        if not record.algorithms or not set(record.algorithms) <= set(allowed):
            raise Unusable("Its algorithms do not fit its keys.")
        secret = unseal(self._pepper, SEALING_LABEL, record.sealed_secret) if record.sealed_secret else ""
        return _Issuer(record, source, secret)

    def _all(self) -> list[_Issuer]:
        return [issuer for several in self._issuers.values() for issuer in several]

    async def run(self) -> None:
        """Fetch the keys that are due, until cancelled."""
        while True:
            await self.fetch_due(self._all())
            await asyncio.sleep(TICK_SECONDS)

    async def fetch_due(self, issuers: Iterable[_Issuer]) -> bool:
        """Fetch the keys of those of whom they are due; whether there was one."""
        due = [issuer.source for issuer in issuers if issuer.source.due]
        if any(await asyncio.gather(*(source.refresh() for source in due))):
            self._verified = {}  # a key that its issuer withdrew proves nothing any more
        return bool(due)

    def verify(self, tenant: str, allowed: Sequence[str], token: str, now: float) -> Consumer:
        """Who a token of one of the tenant's issuers speaks of. `allowed` names issuers, empty is all; `now` is in
        seconds since the epoch.

        Raises:
            Problem: api_key_invalid, api_key_expired; unavailable while its issuer's keys have never been there.
        """
        known = self._verified.get((tenant, token))
        if known is not None and now < known.consumer.expires_at and (not allowed or known.issuer in allowed):
            return known.consumer
        issuer, claims = self._check(tenant, allowed, token, now)
        consumer = _consumer(issuer.record, claims)
        if len(self._verified) >= REMEMBERED:
            self._verified.clear()
        self._verified[tenant, token] = _Verified(consumer, issuer.record.name)
        return consumer

    def read(self, tenant: str, allowed: Sequence[str], token: str) -> tuple[dict[str, Any], list[_Issuer]]:
        """A token's header, and the issuers by whom it may be. Nothing of it is verified.

        Raises:
            Problem: api_key_invalid.
        """
        if len(token) > MAX_TOKEN:
            raise refused("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
            said = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise refused("This is no JSON Web Token.") from None
        if "crit" in header:
            raise refused("The token's header asks for what is not understood here (crit).")  # RFC 7515 §4.1.11
        by = said.get("iss")
        issuers = self._issuers.get((tenant, by), []) if isinstance(by, str) else []
        issuers = [issuer for issuer in issuers if not allowed or issuer.record.name in allowed]
        if not issuers:
            raise refused("The token is from an issuer that is not believed here.")
        return header, issuers

    def _check(self, tenant: str, allowed: Sequence[str], token: str, now: float) -> tuple[_Issuer, dict[str, Any]]:
        header, issuers = self.read(tenant, allowed, token)
        problem = None
        for issuer in issuers:
            try:
                return issuer, _claims(issuer, token, header, now)
            except Problem as error:
                problem = error
        assert problem is not None  # noqa: S101 (there was one issuer at least)
        raise problem


def refused(sentence: str, code: str = "api_key_invalid") -> Problem:
    return Problem(code, sentence, headers=_CHALLENGE)


def missing() -> Problem:
    """Nobody was named on a route that takes tokens (RFC 6750 §3)."""
    sentence = "Send a token as Authorization: Bearer."
    return Problem("api_key_missing", sentence, headers={"WWW-Authenticate": 'Bearer realm="anumate"'})


def _claims(issuer: _Issuer, token: str, header: dict[str, Any], now: float) -> dict[str, Any]:
    record, algorithm = issuer.record, header.get("alg")
    if algorithm not in record.algorithms:
        raise refused("The token is signed with an algorithm that its issuer does not use.")
    required = ["iss", "aud", "exp", record.subject_claim, *record.required_claims]
    # The times are judged below, by our clock.
    options: Any = {"require": required, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    for key in _candidates(issuer, header, algorithm):
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, [algorithm], options, audience=record.audiences, issuer=record.issuer
            )
        except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
            continue
        except jwt.MissingRequiredClaimError as error:
            raise refused(f"The token lacks the claim {error.claim}.") from None
        except jwt.InvalidAudienceError:
            raise refused("The token is for somebody else (aud).") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise refused("The token is not valid.") from None
        _require_time(claims, record.leeway, now)
        return claims
    raise refused("The token's signature is not that of its issuer.")


def _candidates(issuer: _Issuer, header: dict[str, Any], algorithm: str) -> list[Any]:
    """The keys that may have signed it: the one it names, or where it names none all that fit."""
    if issuer.secret:
        return [issuer.secret]
    keys, kid = issuer.source.keys, header.get("kid")
    if not keys:
        issuer.source.want()
        detail = "The keys of the token's issuer are not known here yet. Try again."
        raise Problem("unavailable", detail, headers={"Retry-After": "1"})
    if isinstance(kid, str) and kid in keys:
        found = [keys[kid]]
    elif kid is None or not issuer.source.url:
        found = list(keys.values())
    else:
        issuer.source.want()
        raise refused("The token is signed with a key that its issuer has not published.")
    return [key for key, bound in found if (not bound or bound == algorithm) and _fits(key, algorithm)]


def _fits(key: Any, algorithm: str) -> bool:
    return isinstance(key, _FAMILIES[algorithm[:2]])


def _require_time(claims: dict[str, Any], leeway: int, now: float) -> None:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if any(isinstance(at, bool) or not isinstance(at, (int, float)) for at in times.values()):
        raise refused("A time in the token is no number.")
    if not all(0 <= at <= LATEST for at in times.values()):  # NaN is not, either
        raise refused("A time in the token is none of this era.")
    if now >= times["exp"] + leeway:
        raise refused("The token has expired.", "api_key_expired")
    if any(times.get(name, now) > now + leeway for name in ("nbf", "iat")):
        raise refused("The token is not valid yet.")


def _consumer(record: IssuerRecord, claims: dict[str, Any]) -> Consumer:
    subject = claims[record.subject_claim]
    if not isinstance(subject, str) or not subject or len(subject) > 255:
        raise refused(f"The claim {record.subject_claim} names nobody.")
    said = claims.get("name")
    name = said if isinstance(said, str) and len(said) <= 255 else subject
    if not (_is_text(subject) and _is_text(name)):
        raise refused("A name in the token holds half a character.")
    return Consumer(
        id=f"{record.name}/{quote(subject, safe='@')}",
        name=name,
        tenant=record.tenant,
        hash="",
        scopes=tuple(dict.fromkeys((*((INVOKE,) if record.grants_invoke else ()), *_scopes(record, claims)))),
        expires_at=float(claims["exp"]) + record.leeway,
        subject=subject,
        issuer=record.issuer,
    )


def _is_text(said: str) -> bool:
    """Whether it can be encoded: JSON may hold one surrogate of a pair."""
    return not any("\ud800" <= character <= "\udfff" for character in said)


def _scopes(record: IssuerRecord, claims: dict[str, Any]) -> list[str]:
    """RFC 8693 §4.2: words in one text; many write a list instead."""
    said = claims.get(record.scope_claim) if record.scope_claim else claims.get("scope", claims.get("scp"))
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    # `admin` allows everything here; a stranger's word of that name does not mean it.
    return [word for word in words if isinstance(word, str) and word != "admin"]
