"""The listener's own certificate, and whose clients it believes, taken up anew when their files change.

ACME clients and cert-manager replace certificates while a server runs. A context that is in use forgets no authority,
so each change makes a new one, which OpenSSL is given at the beginning of each handshake.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from typing import Any, Final

logger = logging.getLogger("anumate.gateway")

LOOK_SECONDS: Final = 5.0


class Certificates:
    """What the handshakes of a listening `context` use. Connections that are open keep what they began with.

    `make` reads `files` into a new context, and raises OSError (ssl.SSLError is one) where they cannot be used.
    """

    def __init__(self, context: ssl.SSLContext, make: Callable[[], ssl.SSLContext], *files: str) -> None:
        self._current = context
        self._make = make
        self._files = tuple(file for file in files if file)
        self._seen = self._stamps()
        context.sni_callback = self._use_current  # called whether the client names a server or not

    def renew(self) -> bool:
        """Take up the files if they changed; whether new handshakes now use something else.

        Files that cannot be used leave the old ones in force, and are not tried again until they change.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            made = self._make()
        except (OSError, ValueError) as error:
            logger.error("the new TLS files cannot be used, the old ones stay: %s", error)
            return False
        self._current = made
        logger.info("serving with the new TLS files %s", ", ".join(self._files))
        return True

    def _use_current(self, connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

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


def listening(certificate: str, key: str, authorities: str = "") -> ssl.SSLContext:
    """A context for the listener: TLS 1.2 at least, HTTP/1.1 by ALPN (RFC 7301). With `authorities`, a client needs a
    certificate that one of them signed.

    Raises:
        OSError: the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # Rather than have OpenSSL ask at the terminal.
    context.load_cert_chain(certificate, key or None, password=lambda: "")
    if authorities:
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED
        # Who resumes a session shows no certificate: an authority that was removed would still be believed.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context
