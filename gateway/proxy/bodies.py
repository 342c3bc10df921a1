"""A request's body on its way in: waited for, measured, and kept as long as it may have to be sent again."""

from __future__ import annotations

import asyncio

from anumate.lib.problem import Problem
from gateway.proxy.exchange import Exchange
from gateway.proxy.forwarder import Message, Receive, stalled


async def first_piece(receive: Receive, seconds: float) -> Message:
    """The first piece of the body, or the news that the client is gone.

    Raises:
        Problem: request_timeout.
    """
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError:
        raise stalled(seconds) from None


def bounded(receive: Receive, most: int, x: Exchange) -> Receive:
    """The body, as long as it has no more than `most` bytes.

    Raises (also what is answered):
        Problem: payload_too_large.
    """
    if x.content_length is not None:
        if int(x.content_length) > most:
            raise _too_large(most)
        return receive  # the server takes no more than was announced
    size = 0

    async def measured() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise _too_large(most)
        return message

    return measured


def _too_large(most: int) -> Problem:
    # What is still to come must not be read as the next request.
    detail = f"This route takes bodies of up to {most} bytes."
    return Problem("payload_too_large", detail, headers={"Connection": "close"})


class Kept:
    """What came of a body after its first piece, for another instance that may have to get it too.

    `whole` says that all of it is there; once it is more than `most` bytes it is given up, and never comes back.
    """

    __slots__ = ("_left", "_next", "_pieces", "_receive", "whole")

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most
        self._pieces: list[Message] = []
        self._next = 0
        self.whole = most >= 0

    async def receive(self) -> Message:
        if self._next < len(self._pieces):
            self._next += 1
            return self._pieces[self._next - 1]
        message = await self._receive()
        if self.whole and message["type"] == "http.request":
            self._keep(message)
        return message

    def _keep(self, message: Message) -> None:
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.whole = False
            self._pieces.clear()
            self._next = 0
        else:
            self._pieces.append(message)
            self._next += 1

    def rewind(self) -> None:
        """Begin again with the piece after the first."""
        self._next = 0
