"""Requests that came before, told by their bytes: what was found out about them is not found out again.

A key is cut out first, so that one request is remembered once, whoever sends it; who may send it is remembered of each
key. Both hold as long as table and keys are the same. Measured in turn: a third of what the gateway itself does for a
request of a key that comes seldom.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.proxy.auth import consumer_lines
from gateway.proxy.exchange import Exchange
from gateway.proxy.heads import Template
from gateway.proxy.live import Here
from registry.live.keys import KEY_BYTES, KeyRecord, KeyRing
from registry.live.presented import OURS, presented_key

KNOWN: Final = 1024
KNOWN_BYTES: Final = 2048
"""Requests that are remembered, and how long these may be."""
CALLERS: Final = 10_000
NOWHERE: Final = -1


class Caller(NamedTuple):
    """A key that was let in, the lines that tell services of it, and the routes it was let in to."""

    client: KeyRecord
    lines: bytes
    routes: set[int]


class Known(NamedTuple):
    """A request that was let in, with the head that its service gets of it. `at` is where its key was cut out; whose
    key was not belongs to one `caller`, or is for everybody."""

    x: Exchange
    head: Template
    route: int
    at: int
    caller: Caller | None


class Memory:
    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._known: dict[bytes, Known] = {}
        self._callers: dict[bytes, Caller] = {}
        self._here: Here | None = None
        self._era: object = None

    def recall(self, data: bytes, here: Here) -> tuple[Known, Caller | None] | None:
        """What is known of the request in these bytes, and who sends it."""
        if self._here is not here or self._era is not self._ring.era:
            self._here, self._era = here, self._ring.era
            self._known.clear()
            self._callers.clear()
        at = data.find(OURS)
        if at != NOWHERE:
            end = at + KEY_BYTES
            known = self._known.get(data[:at] + data[end:])
            if known is not None and known.at == at:
                # Only what was verified as a key is a caller: it has no byte that would make another request of this.
                caller = self._callers.get(data[at:end])
                return None if caller is None or known.route not in caller.routes else (known, caller)
        known = self._known.get(data)
        return None if known is None or known.at != NOWHERE else (known, known.caller)

    def remember(self, data: bytes, x: Exchange, head: Template, here: Here, *, again: bool) -> None:
        """Keep what was found out about a request that was let in, if it is the same for everybody who sends it; its
        bytes only when they came `again`.

        A token has an end of its own, and a key for some networks depends on where it comes from.
        """
        client, binding = x.client, x.binding
        if len(data) > KNOWN_BYTES or binding is None:
            return
        route, caller, at = binding.route.id, None, NOWHERE
        if client is not None:
            if type(client) is not KeyRecord or client.networks:
                return
            key = presented_key(x.known)
            cut = data.find(OURS)
            if key is None or here.reads_credentials or not _is_all(data, cut, key.encode("latin-1")):
                caller = Caller(client, consumer_lines(client), {route})
            else:
                at = cut
                self._let_in(data[at : at + KEY_BYTES], client, route)
                data = data[:at] + data[at + KEY_BYTES :]
        if again:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[data] = Known(x, head, route, at, caller)

    def _let_in(self, key: bytes, client: KeyRecord, route: int) -> None:
        caller = self._callers.get(key)
        if caller is None:
            if len(self._callers) >= CALLERS:
                self._callers.clear()
            caller = self._callers[key] = Caller(client, consumer_lines(client), set())
        caller.routes.add(route)


def _is_all(data: bytes, at: int, key: bytes) -> bool:
    """Whether this is where the key is, and the request has no other."""
    end = at + KEY_BYTES
    return data[at:end] == key and data.find(OURS, end) == NOWHERE
