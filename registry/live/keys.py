"""API keys: how they look, how they are checked, and which tenant a host name belongs to.

A key is `anm_<public id>_<secret>_<checksum>`: the public id finds its record, the checksum lets a scanner (and us)
tell a real key from a typing error without asking anybody. Only a peppered hash of the whole is kept.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from anumate.lib.problem import Problem
from registry.live.instances import Fact
from registry.live.usage import Usage

DEFAULT_TENANT: Final = "default"
READING_SCOPES: Final = ("registry:read", "health:read", "gateway:read", "gateway:invoke")
SCOPES: Final = (
    "registry:read",
    "registry:write",
    "health:read",
    "health:write",
    "gateway:invoke",
    "gateway:read",
    "gateway:write",
    "admin",
)

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE: Final = re.compile(r"(anm_([0-9A-Za-z]{10})_[0-9A-Za-z]{32})_([0-9A-Za-z]{6})", re.ASCII)
KEY_BYTES: Final = 54
"""Every key is as long."""
_REMEMBERED: Final = 20_000


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as every process knows it. `id` is its public part; `expires_at` 0 means never.

    `routes` are the gateway's routes it is good for, and `networks` where it may come from (CIDR); empty is no limit.
    `rate_limit_policy` names a policy of its tenant that takes the place of the routes'; empty is none.
    """

    id: str
    name: str
    tenant: str
    hash: str
    scopes: tuple[str, ...] = ()
    expires_at: float = 0.0
    routes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    rate_limit_policy: str = ""

    def allows(self, scope: str) -> bool:
        """Whether the key may do this; `admin` may do everything within its tenant."""
        return scope in self.scopes or "admin" in self.scopes

    def require_network(self, address: str) -> None:
        """Raises Problem `scope_missing` where the key may not come from this address."""
        if self.networks and not within(address, self.networks):
            raise Problem("scope_missing", "The key may not be used from this address.")


class TenantRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tenant as every process knows it. A quota that is None is none."""

    name: str
    active: bool = True
    hosts: tuple[str, ...] = ()
    max_services: int | None = None
    max_instances: int | None = None
    max_requests_per_second: int | None = None


class KeySection(msgspec.Struct, frozen=True):
    """Body of the section `keys`."""

    keys: tuple[KeyRecord, ...] = ()


class TenantSection(msgspec.Struct, frozen=True):
    """Body of the section `tenants`."""

    tenants: tuple[TenantRecord, ...] = ()


class StateSection(msgspec.Struct, frozen=True):
    """Body of the section `states`: what operators want of services and instances, by the text of their Key."""

    states: dict[str, Fact] = {}


ANONYMOUS: Final = KeyRecord("", "anonymous", DEFAULT_TENANT, "", READING_SCOPES)


def make() -> tuple[str, str]:
    """A new key: its public id, and the whole of it, which is shown once."""
    public_id, secret = _random(10), _random(32)
    body = f"anm_{public_id}_{secret}"
    return public_id, f"{body}_{_checksum(body)}"


@lru_cache(maxsize=4096)
def within(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an address is in one of the networks. What is no address is in none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(_holds(network, parsed) for network in networks)


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """What is no network holds nothing: it must not open a key to everybody, nor end in a mistake."""
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def well_formed(text: str) -> bool:
    return public_id_of(text) is not None


def public_id_of(text: str) -> str | None:
    """The public id of a well-formed key; None when this cannot be one of ours."""
    match = _SHAPE.fullmatch(text)
    if match is None or _checksum(match[1]) != match[3]:
        return None
    return match[2]


def secret_hash(pepper: str, full: str) -> str:
    return hmac.digest(pepper.encode(), full.encode(), "sha256").hex()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits


class KeyRing:
    """Answers who presents a key, from memory. `replace` swaps in what the database says, whole."""

    def __init__(self, pepper: str, *, key_required: bool = True) -> None:
        self._pepper = pepper
        self._key_required = key_required
        self._records: dict[str, KeyRecord] | None = None
        self._tenants: dict[str, TenantRecord] | None = None
        self._hosts: dict[str, str] = {}
        self._verified: dict[str, KeyRecord] = {}
        self.usage = Usage()

    @property
    def ready(self) -> bool:
        """Whether keys and tenants are known; before, nobody can be told from anybody."""
        return self._records is not None and self._tenants is not None

    @property
    def era(self) -> object:
        """Another object whenever keys or tenants have changed: what was found out before may not hold any more."""
        return self._verified

    def replace(self, keys: Iterable[KeyRecord] | None = None, tenants: Iterable[TenantRecord] | None = None) -> None:
        """Take over these keys, these tenants, or both."""
        if keys is not None:
            self._records = {record.id: record for record in keys}
        if tenants is not None:
            self._tenants = {tenant.name: tenant for tenant in tenants}
            self._hosts = {host.lower(): t.name for t in self._tenants.values() if t.active for host in t.hosts}
        # A new dict, so that a check that is under way in another thread cannot remember a key that was just revoked.
        self._verified = {}

    def verify(self, presented: str | None, now: float) -> KeyRecord:
        """The record of the key presented.

        Raises:
            Problem: `api_key_missing`, `api_key_invalid`, `api_key_expired`; `unavailable` while no key is known yet.
        """
        verified = self._verified
        record = verified.get(presented) if presented else None
        if record is None:
            record = self._check(presented)
            if presented:
                if len(verified) >= _REMEMBERED:
                    verified.clear()
                verified[presented] = record
        self.use(record, now)
        return record

    def use(self, record: KeyRecord, now: float) -> None:
        """Note that a verified key is used again.

        Raises:
            Problem: `api_key_expired`.
        """
        if record.expires_at and record.expires_at <= now:
            raise Problem("api_key_expired", "This API key has expired. Ask for a new one.")
        self.usage.seen[record.id] = now

    def _check(self, presented: str | None) -> KeyRecord:
        if not presented:
            if not self._key_required:
                return self.anonymous()
            raise Problem("api_key_missing", "Send an API key in X-API-Key, or as Authorization: Bearer.")
        records, tenants = self._records, self._tenants
        if records is None or tenants is None:
            raise Problem("unavailable", "API keys are not known here yet. Try again.", headers={"Retry-After": "1"})
        public_id = public_id_of(presented)
        record = records.get(public_id) if public_id else None
        # Hash also for an unknown id, so that time does not tell which ids exist.
        proof = secret_hash(self._pepper, presented)
        if not hmac.compare_digest(proof, record.hash if record else "") or record is None:
            raise Problem("api_key_invalid", "This API key is not known, or was revoked.")
        tenant = tenants.get(record.tenant)
        if tenant is None or not tenant.active:
            raise Problem("api_key_invalid", "The tenant of this API key is not active.")
        return record

    def anonymous(self) -> KeyRecord:
        """Who comes without a key where none is required: reads and invokes in `default`."""
        return ANONYMOUS

    def tenant(self, name: str) -> TenantRecord | None:
        return (self._tenants or {}).get(name)

    def tenant_of_host(self, host: str) -> str:
        """The tenant a request belongs to: exact host, then the longest wildcard, then `default`."""
        if not self._hosts:
            return DEFAULT_TENANT
        name = _without_port(host).rstrip(".").lower()
        if (owner := self._hosts.get(name)) is not None:
            return owner
        while dot := name.find(".") + 1:
            name = name[dot:]
            if (owner := self._hosts.get("*." + name)) is not None:
                return owner
        return DEFAULT_TENANT


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]
