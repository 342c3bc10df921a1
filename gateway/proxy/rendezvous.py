"""Rendezvous hashing: each subject has an order of preference among the members, by weight, known to all alike.

When a member leaves, only its own subjects move, each to its second choice; when it comes back, they do too. After
Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996), with the weights of Schindelhauer and
Schomaker, "Weighted Distributed Hash Tables" (2005).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

_MASK: Final = (1 << 64) - 1


class Member(Protocol):
    """`digest` is that of its name, kept because it never changes."""

    digest: int
    weight: int


M = TypeVar("M", bound=Member)


def digest(text: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def favourite(members: Iterable[M], subject: int) -> M:
    """The subject's first choice. A choice takes about a microsecond for each member."""
    return max(members, key=lambda member: -member.weight / math.log(_unit(member.digest ^ subject)))


def _unit(bits: int) -> float:
    """A number between 0 and 1, both excluded, that looks random (the finaliser of splitmix64)."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((bits ^ (bits >> 31)) + 0.5) / (_MASK + 2)
