"""Which addresses an instance may give: loopback and private ones, but none that leads to a cloud's metadata.

A name may still resolve to such an address later: who connects takes its addresses from `resolve`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from functools import lru_cache

METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog"})
METADATA_ADDRESSES = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"))
)

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*\.?")
# A last label like this makes resolvers read the whole as an IPv4 address in one of its old spellings (0xa9fea9fe).
_NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)\.?")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(OSError):
    """Nothing may be sent to this host; the text says why."""


async def resolve(host: str) -> list[str]:
    """The addresses of a host that something may be sent to, in the resolver's order.

    Raises:
        Refused: it has only such that nothing may be sent to.
        OSError: it has none.
    """
    found = [host] if is_address(host) else await _look_up(host)
    allowed = [address for address in found if refusal(address) is None]
    if not allowed:
        raise Refused(refusal(found[0]))
    return allowed


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _look_up(name: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise OSError(f"the name {name} has no address") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@lru_cache(8192)
def refusal(host: str) -> str | None:
    """Why nothing may be sent to this host, as a sentence; None when it may."""
    text = host.lower()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _refusal_of_name(text)
    return _refusal_of_address(address)


def _refusal_of_name(name: str) -> str | None:
    if not _NAME.fullmatch(name) or _NUMERIC.fullmatch(name):
        return "This is no host name and no IP address."
    if name.rstrip(".") in METADATA_NAMES:
        return "Metadata services are not reached through here."
    return None


def _refusal_of_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "An address with a zone means something on one machine only."
        if (inner := _embedded(address)) is not None:
            return _refusal_of_address(inner)
    if address.is_link_local:
        return "Link-local addresses are not reached through here."
    if address in METADATA_ADDRESSES:
        return "Metadata services are not reached through here."
    if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return "This address names no single machine."
    return None


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this one would reach."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
