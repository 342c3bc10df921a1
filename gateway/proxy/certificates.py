"""The listener's own certificate, taken up anew when its files change: ACME clients and cert-manager replace them."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Final

logger = logging.getLogger("anumate.gateway")

LOOK_SECONDS: Final = 5.0


class Certificates:
    """Certificate and key of a context that is in use. Connections that are open keep what they began with."""

    def __init__(self, context: ssl.SSLContext, certificate: str, key: str) -> None:
        self._context = context
        self._files = certificate, key
        self._seen = self._stamps()

    def renew(self) -> bool:
        """Take up the files if they changed; whether new handshakes now show something else.

        A pair that cannot be used leaves the old one in force, and is not tried again until it changes.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            # Tried on a context of its own: a bad key must not leave the live one half changed.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files, password=_no_password)
            self._context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            logger.error("the new TLS certificate cannot be used, the old one stays: %s", error)
            return False
        logger.info("serving with the new TLS certificate in %s", self._files[0])
        return True

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.renew)

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: str) -> tuple[int, int, int]:
    """Changes with the file. Kubernetes swaps a link, so that is followed."""
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    """Rather than have OpenSSL ask at the terminal."""
    return ""
