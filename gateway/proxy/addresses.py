"""One client, one address: however whoever saw it writes it down."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

from anumate.lib.env import Networks

LONGEST: Final = 128
"""An address with zone, brackets and port is shorter; what is longer is not remembered."""

_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}").fullmatch


def canonical(said: str) -> str:
    """The address without port and brackets, in its one spelling, an IPv4 one as such. What is none stays as it is."""
    return _canonical(said) if len(said) <= LONGEST else said


@lru_cache(maxsize=4096)
def _canonical(said: str) -> str:
    found = _WITH_PORT(said)
    try:
        address = ipaddress.ip_address(found[1] or found[2] if found else said)
    except ValueError:
        return said
    return str(getattr(address, "ipv4_mapped", None) or address)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Of a canonical IPv6 address its /64, which a client has all of; what is none stays as it is."""
    try:
        return str(ipaddress.IPv6Network((int(ipaddress.IPv6Address(address)) >> 64 << 64, 64)))
    except ValueError:
        return address


def without_mapped(networks: Networks) -> Networks:
    """Those of IPv4-mapped addresses as the IPv4 ones that they mean."""
    return tuple(_unmapped(network) for network in networks)


def _unmapped(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
