"""Targets that a caller chooses by a header or cookie, before chance decides by weight."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.proxy.balancer import Share
from gateway.proxy.request import Header
from gateway.proxy.table import Target


class Asking:
    """What asks for a target: the header or the cookie, either will do. Without both nothing does."""

    __slots__ = ("_cookie", "_header")

    def __init__(self, target: Target) -> None:
        header, cookie = target.header, target.cookie
        self._header = (header.name.lower().encode(), header.value.encode()) if header else None
        self._cookie = f"{cookie.name}={cookie.value}".encode() if cookie else None

    @property
    def conditional(self) -> bool:
        """Whether only those who ask for it get it."""
        return self._header is not None or self._cookie is not None

    def asked_for(self, headers: Sequence[Header]) -> bool:
        if self._header is not None and self._header in headers:
            return True
        return self._cookie is not None and any(
            name == b"cookie" and any(pair.strip(b" \t") == self._cookie for pair in value.split(b";"))
            for name, value in headers
        )


class Choice(Asking):
    """Such a target, bound."""

    __slots__ = ("shares",)

    def __init__(self, target: Target, share: Share) -> None:
        super().__init__(target)
        self.shares = (share,)


def chosen(choices: Sequence[Choice], otherwise: tuple[Share, ...], headers: Sequence[Header]) -> tuple[Share, ...]:
    """The target that the request asks for, if it has an instance; else those among which weight decides."""
    for choice in choices:
        if choice.shares[0][0].endpoints and choice.asked_for(headers):
            return choice.shares
    return otherwise
