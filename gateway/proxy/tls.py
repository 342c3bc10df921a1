"""How instances are spoken to over TLS: whom to believe, and what to show them."""

from __future__ import annotations

import os
import ssl
import tempfile
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.proxy.policies import Tls

TLS_KEYS: Final = "upstream-tls"
"""Label that the private keys of upstreams are sealed with."""


class Secure(NamedTuple):
    """A client's side of TLS; `server_name` empty is the endpoint's own host."""

    context: ssl.SSLContext
    server_name: str = ""


@lru_cache(maxsize=1)
def usual() -> Secure:
    """With the system's authorities, verified. Reading those takes tens of milliseconds, the first time."""
    return Secure(_context(""))


@lru_cache(maxsize=256)
def secure(tls: Tls, key: str = "") -> Secure:
    """As an upstream says; `key` is the PEM private key to its certificate.

    Raises:
        ValueError: certificates or key are not fit for use.
    """
    try:
        context = _context(tls.authorities)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.certificate:
            _show(context, tls.certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"its TLS settings cannot be used: {error}") from None
    return Secure(context, tls.server_name)


def _context(authorities: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authorities or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """OpenSSL takes them from a file only: one that nobody else may read, and that is gone at once."""
    handle, path = tempfile.mkstemp(prefix="anumate-tls-")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{certificate.strip()}\n{key.strip()}\n")
        context.load_cert_chain(path, password=_no_password)
    finally:
        os.unlink(path)


def _no_password() -> str:
    """Rather than have OpenSSL ask at the terminal."""
    return ""
