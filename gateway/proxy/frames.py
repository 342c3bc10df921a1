"""WebSocket frames as they pass by (RFC 6455 §5): followed by their heads, their payload neither kept nor changed."""

from __future__ import annotations

from typing import Final

CONTINUATION: Final = 0x0
CLOSE: Final = 0x8

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

CONTROL_LIMIT: Final = 125
"""Bytes of a control frame's payload (§5.5)."""
_OPCODES: Final = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))


class FrameError(Exception):
    """What came breaks the protocol, or a limit; `code` is the status that a Close frame says it with (§7.4.1)."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Frames:
    """One direction of a connection.

    `masked` says who speaks: a client masks every frame, a server none (§5.1). `message_bytes` bounds a message, over
    all its fragments, as it is on the wire; 0 is no bound.
    """

    __slots__ = ("_head", "_in_message", "_left", "_limit", "_size", "closed", "masked")

    def __init__(self, *, masked: bool, message_bytes: int) -> None:
        self.masked = masked
        self._limit = message_bytes
        self._head = bytearray()  # of the frame that begins, as far as it has come
        self._left = 0  # bytes of the frame's payload that are still to come
        self._in_message = False
        self._size = 0  # of the message so far
        self.closed = False
        """A Close frame has begun: nothing may come after it."""

    @property
    def between(self) -> bool:
        """Whether the last byte that passed was a frame's last, so that another frame may be put in here."""
        return not self._left and not self._head

    def follow(self, data: bytes) -> None:
        """Take note of what passes.

        Raises:
            FrameError: none of `data` should be passed on, and nothing after it be read.
        """
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            if self.closed:
                raise FrameError(PROTOCOL_ERROR, "Something comes after the Close frame.")
            missing = self._missing()
            self._head += data[at : at + missing]
            at += missing
            if not self._missing():
                self._begin()

    def _missing(self) -> int:
        """How many bytes of the frame's head have not come: at most all of them (§5.2)."""
        head = self._head
        if len(head) < 2:
            return 2 - len(head)
        length = head[1] & 0x7F
        size = 2 + (8 if length == 127 else 2 if length == 126 else 0) + (4 if head[1] & 0x80 else 0)
        return size - len(head)

    def _begin(self) -> None:
        first, second = self._head[0], self._head[1]
        opcode, final = first & 0x0F, bool(first & 0x80)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(self._head[2:4])
        elif length == 127:
            length = int.from_bytes(self._head[2:10])
        self._head.clear()
        if opcode not in _OPCODES:
            raise FrameError(PROTOCOL_ERROR, f"Opcode {opcode:#x} is reserved.")
        if bool(second & 0x80) is not self.masked:
            raise FrameError(PROTOCOL_ERROR, "A client masks its frames, a server does not.")
        if length >> 63:
            raise FrameError(PROTOCOL_ERROR, "A frame's length has its highest bit set.")
        if opcode >= CLOSE:
            self._begin_control(opcode, final, length)
        else:
            self._begin_data(opcode, final, length)
        self._left = length

    def _begin_control(self, opcode: int, final: bool, length: int) -> None:
        if not final or length > CONTROL_LIMIT:
            raise FrameError(PROTOCOL_ERROR, f"A control frame is whole, and of {CONTROL_LIMIT} bytes at most.")
        if opcode == CLOSE:
            if length == 1:
                raise FrameError(PROTOCOL_ERROR, "A Close frame's status has two bytes.")
            self.closed = True

    def _begin_data(self, opcode: int, final: bool, length: int) -> None:
        if (opcode == CONTINUATION) is not self._in_message:
            raise FrameError(PROTOCOL_ERROR, "A message's fragments have to follow each other.")
        self._size += length
        if self._limit and self._size > self._limit:
            raise FrameError(TOO_BIG, f"A message is over {self._limit} bytes.")
        self._in_message = not final
        if final:
            self._size = 0


def close_frame(code: int, why: str = "", *, mask: bytes | None = None) -> bytes:
    """A Close frame; with the four bytes of `mask` it is a client's (§5.3). Of a long reason, as much as fits in."""
    reason = why.encode()[: CONTROL_LIMIT - 2].decode(errors="ignore")  # half a character would be an error (§5.5.1)
    payload = code.to_bytes(2) + reason.encode()
    if mask is None:
        return bytes((0x80 | CLOSE, len(payload))) + payload
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return bytes((0x80 | CLOSE, 0x80 | len(payload))) + mask + masked
