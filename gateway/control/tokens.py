"""The tokens that explain is asked about: judged by the data plane's own code, with keys that this process fetches."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache

import msgspec
from django.conf import settings

from anumate.lib.problem import Problem
from gateway.control.issuers import section
from gateway.proxy.tokens import Consumer, Tokens


class PatientTokens(Tokens):
    """Goes by the issuers' rows as they are now, and waits for keys that a worker would have fetched beforehand."""

    def __init__(self) -> None:
        super().__init__(settings.API_KEY_PEPPER)
        self._taking = threading.Lock()
        self._asking: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        """By tenant and name of the issuer: one that does not answer keeps nobody waiting but who waits for it."""
        self._taken = b""

    def verify(self, tenant: str, allowed: Sequence[str], token: str, now: float) -> Consumer:
        """As of `Tokens`; an issuer is asked as seldom as by a worker."""
        with self._taking:
            if (body := msgspec.json.encode(section())) != self._taken:
                self.take(body)
                self._taken = body
            _, issuers = self.read(tenant, allowed, token)
        with ExitStack() as stack:
            # In one order, or two could wait for each other.
            for name in sorted(issuer.record.name for issuer in issuers):
                stack.enter_context(self._asking[tenant, name])
            asyncio.run(self.fetch_due(issuers))
            try:
                return super().verify(tenant, allowed, token, now)
            except Problem:
                if not asyncio.run(self.fetch_due(issuers)):  # nothing that is not known here was missing
                    raise
            return super().verify(tenant, allowed, token, now)


@cache
def patient_tokens() -> PatientTokens:
    """This process's."""
    return PatientTokens()
