"""Secrets at rest: sealed with a key that is derived from one of the installation's own, which is in no database.

Fernet (AES-128-CBC with HMAC-SHA-256) under a key from HKDF-SHA-256 (RFC 5869). Each label has a key of its own, so
that what was sealed for one purpose opens for no other. Who changes the installation's secret has to give these anew.
"""

from __future__ import annotations

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Unsealable(ValueError):
    """It was sealed with another secret, for another purpose, or is damaged."""


def seal(secret: str, label: str, text: str) -> str:
    """The text, readable only for who has the secret. Sealing it again gives another result."""
    return _box(secret, label).encrypt(text.encode()).decode("ascii")


def unseal(secret: str, label: str, sealed: str) -> str:
    """What `seal` was given.

    Raises:
        Unsealable: it cannot be opened.
    """
    try:
        return _box(secret, label).decrypt(sealed.encode()).decode()
    except (InvalidToken, UnicodeError):
        raise Unsealable("It was sealed with another secret, or is damaged.") from None


@lru_cache(maxsize=8)
def _box(secret: str, label: str) -> Fernet:
    key = HKDF(SHA256(), 32, salt=None, info=b"anumate/" + label.encode()).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(key))
