"""Private keys to the certificates that the gateway shows to instances: kept sealed, opened by the workers alone."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError

from anumate.lib.sealing import Unsealable, seal, unseal
from gateway.control import documents
from gateway.proxy.policies import Tls
from gateway.proxy.tls import TLS_KEYS, secure

MOST: int = 64_000
"""Characters of a key."""


def sealed(pem: str) -> str:
    """The key as it is kept; nothing stays nothing."""
    return seal(settings.API_KEY_PEPPER, TLS_KEYS, pem.strip()) if pem.strip() else ""


def check_pair(tls: object, kept: str) -> None:
    """Whether the settings, with the key that is kept, can be used as they are.

    Raises:
        ValidationError: a certificate has no key, a key no certificate, or they do not belong together.
    """
    policy = documents.read(Tls, tls)
    if not policy.certificate:
        if kept:
            raise ValidationError("The private key has no certificate.")
        return
    if not kept:
        raise ValidationError("A certificate needs its private key.")
    try:
        secure(policy, unseal(settings.API_KEY_PEPPER, TLS_KEYS, kept))
    except Unsealable:
        raise ValidationError("The private key was sealed with another secret; give it anew.") from None
    except ValueError:
        raise ValidationError("The private key is none, or does not belong to the certificate.") from None
