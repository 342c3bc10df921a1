"""The public keys of an issuer: read from its JWKS (RFC 7517) or PEM, fetched anew beside the requests.

A fetch that fails leaves the last good keys in force: an issuer that is away must not lock its users out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from anumate.lib.clock import Clock
from registry.live import addresses
from registry.live.issuers import IssuerRecord

logger = logging.getLogger("anumate.gateway")

FETCH_SECONDS: Final = 5.0
FIRST_SECONDS: Final = 1.0
"""Within so long the keys are fetched for the first time; at once, where a token asks for them."""
REFRESH_SECONDS: Final = 300.0
SOONEST_SECONDS: Final = 10.0
"""Between two fetches that tokens with an unknown key ask for: anybody can make such tokens up."""
MAX_BYTES: Final = 512 * 1024
MAX_KEYS: Final = 100

Keys = Mapping[str, tuple[Any, str]]
"""A public key by its `kid`, with the algorithm it is bound to; one that has neither goes by "" and ""."""

_END: Final = "-----END PUBLIC KEY-----"


class Unusable(ValueError):
    """No keys can be had from this; the text says why."""


def read_keys(text: str) -> Keys:
    """The keys of a JWKS document or of PEM blocks. Keys of a kind that nobody here verifies with are passed over.

    Raises:
        Unusable: there is none, or there are more than 100.
    """
    found = _pem_keys(text) if "-----BEGIN" in text else _jwks_keys(text)
    if not found:
        raise Unusable("It has no public key that can be used.")
    return found


def _pem_keys(text: str) -> Keys:
    blocks = [block + _END for block in text.split(_END) if block.strip()]
    if len(blocks) > MAX_KEYS:
        raise Unusable(f"It has more than {MAX_KEYS} keys.")
    try:
        return {f"#{number}": (load_pem_public_key(block.encode()), "") for number, block in enumerate(blocks)}
    except ValueError:
        raise Unusable("It is not made of PEM public keys.") from None


def _jwks_keys(text: str) -> Keys:
    try:
        said = msgspec.json.decode(text)
        documents = said["keys"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
        raise Unusable("It is no JWKS document.") from None
    if not isinstance(documents, list) or len(documents) > MAX_KEYS:
        raise Unusable(f"It is no JWKS document of up to {MAX_KEYS} keys.")
    found: dict[str, tuple[Any, str]] = {}
    for number, document in enumerate(documents):
        if not isinstance(document, dict) or document.get("kty") == "oct" or document.get("use", "sig") != "sig":
            continue  # a secret that everybody can fetch proves nothing
        try:
            key = jwt.PyJWK(document)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        found[str(document.get("kid", f"#{number}"))] = (key.key, str(document.get("alg", "")))
    return found


class KeySource:
    """The keys of one issuer. Those of a JWKS address come in the background; `keys` answers from memory."""

    def __init__(self, record: IssuerRecord, now: Clock, *, known: Keys | None = None) -> None:
        self.url = record.jwks_url
        self.keys: Keys = known or {}
        self.fetches = 0
        self._name = f"{record.tenant}/{record.name}"
        self._now = now
        self._due = now() + random.uniform(0.0, FIRST_SECONDS)  # not all workers at once
        self._soonest = 0.0
        self._document = ""
        if record.keys:
            self.keys = read_keys(record.keys)

    def want(self) -> None:
        """Some token names a key that is not known: look again soon."""
        if self.url and self._now() >= self._soonest:
            self._due = 0.0

    @property
    def due(self) -> bool:
        return bool(self.url) and self._now() >= self._due

    async def refresh(self) -> bool:
        """Fetch, keep what was known where that fails, and say when it is due next. Whether the keys are others now."""
        started = self._now()
        self._soonest = started + SOONEST_SECONDS
        self._due = started + REFRESH_SECONDS * random.uniform(0.9, 1.1)
        self.fetches += 1
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = (await fetch(self.url)).decode("utf-8")
            if document == self._document:
                return False
            self.keys, self._document = read_keys(document), document
            return True
        except (Unusable, UnicodeError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            self._due = started + SOONEST_SECONDS * random.uniform(1.0, 2.0)
            logger.warning("the keys of issuer %s cannot be fetched, the last good ones stay: %s", self._name, error)
            return False


async def fetch(url: str) -> bytes:
    """A document of up to 512 KB from an address that people gave: followed nowhere else, and to no metadata service.

    Raises:
        Unusable: the answer is no document. OSError, httpx.HTTPError: there was none.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", "Accept-Encoding": "identity"}
    failure: httpx.TransportError | None = None
    async with httpx.AsyncClient(timeout=FETCH_SECONDS, trust_env=False, follow_redirects=False) as client:
        # Connects to an address that was judged: a name may say another one the next moment.
        for address in await addresses.resolve(host):
            pinned = httpx.URL(url).copy_with(host=address)
            asked = client.build_request("GET", pinned, headers=headers, extensions={"sni_hostname": host})
            try:
                return await _read(await client.send(asked, stream=True))
            except httpx.TransportError as error:
                failure = error
    raise failure or OSError("its host has no address")


async def _read(answer: httpx.Response) -> bytes:
    try:
        if answer.status_code != 200:
            raise Unusable(f"It answered {answer.status_code}.")
        body = b""
        async for piece in answer.aiter_raw():  # as it came: what was packed small could be of any size
            body += piece
            if len(body) > MAX_BYTES:
                raise Unusable(f"It has more than {MAX_BYTES} bytes.")
        return body
    finally:
        await answer.aclose()
