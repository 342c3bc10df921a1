"""Which API key a request comes with, for both ports alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from anumate.lib.problem import Problem

OURS: Final = b"anm_"
BEARER: Final = b"bearer "

holds_ours: Final = re.compile(rb"(?:^|,)[ \t]*bearer[ \t]+anm_", re.IGNORECASE).search
"""Whether there is a key of ours somewhere in an Authorization."""


def presented_key(known: Mapping[bytes, bytes]) -> str | None:
    """The key in X-API-Key, else in Authorization: Bearer; `known` has lines of one name as one list.

    Raises:
        Problem: api_key_invalid, where there are several: which of them counts, another reader might see otherwise.
    """
    key, authorization = known.get(b"x-api-key"), known.get(b"authorization")
    if key is None:
        key = bearer(authorization) if authorization is not None else None
        if key is None:
            return None
    elif authorization is not None and holds_ours(authorization):
        raise Problem("api_key_invalid", "Send one API key, in X-API-Key or as Authorization: Bearer.")
    if b"," in key:  # lines of one name make one list
        raise Problem("api_key_invalid", "Send one API key, not several.")
    return key.decode("latin-1")


def bearer(authorization: bytes) -> bytes | None:
    """What comes with the scheme Bearer; None where it is another one."""
    return authorization[7:].strip() if authorization[:7].lower() == BEARER else None
