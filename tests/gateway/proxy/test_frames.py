"""WebSocket frames that pass by: what is let through, and where a connection has to end."""

from __future__ import annotations

import random

import pytest

from gateway.proxy.frames import FrameError, Frames, close_frame


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes | None = b"\1\2\3\4") -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    if mask is None:
        return bytes([opcode | final << 7]) + length + payload
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return bytes([opcode | final << 7, length[0] | 0x80]) + length[1:] + mask + masked


def clients(limit: int = 0) -> Frames:
    return Frames(masked=True, message_bytes=limit)


GOOD = (
    frame(1, b"hello")
    + frame(2, b"x" * 200, final=False)
    + frame(9, b"ping")
    + frame(0, b"y" * 70_000)
    + frame(0xA)
    + frame(8, b"\x03\xe8bye")
)


@pytest.mark.parametrize("seed", range(20))
def test_it_follows_frames_however_they_are_cut(seed: int) -> None:
    cuts = random.Random(seed)
    frames, at = clients(), 0
    while at < len(GOOD):
        step = cuts.choice((1, 2, 3, 7, 1000, 100_000))
        frames.follow(GOOD[at : at + step])
        at += step
    assert frames.closed
    assert frames.between


def test_it_knows_where_another_frame_may_be_put_in() -> None:
    frames, seen = clients(), []
    for byte in frame(1, b"ab"):
        frames.follow(bytes([byte]))
        seen.append(frames.between)
    assert seen == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(3), 1002),
        (frame(0xB), 1002),
        (frame(1, b"a", mask=None), 1002),
        (frame(0, b"nothing to continue"), 1002),
        (frame(1, final=False) + frame(1), 1002),
        (frame(9, final=False), 1002),
        (frame(9, b"x" * 126), 1002),
        (frame(8, b"\x03"), 1002),
        (frame(8) + frame(1), 1002),
        (b"\x82\xff" + b"\xff" * 8 + b"mask", 1002),
        (frame(1, b"x" * 11), 1009),
        (frame(1, b"x" * 6, final=False) + frame(9, b"x" * 50) + frame(0, b"x" * 5), 1009),
    ],
)
def test_what_breaks_the_protocol_or_the_limit_ends_it(data: bytes, code: int) -> None:
    with pytest.raises(FrameError) as caught:
        clients(10).follow(data)
    assert caught.value.code == code


def test_a_limit_is_for_each_message() -> None:
    clients(10).follow(frame(1, b"x" * 10) * 3 + frame(8))


def test_a_server_must_not_mask() -> None:
    frames = Frames(masked=False, message_bytes=0)
    frames.follow(frame(1, b"a", mask=None))
    with pytest.raises(FrameError):
        frames.follow(frame(1, b"a"))


@pytest.mark.parametrize("mask", [None, b"\x09\x08\x07\x06"])
def test_its_own_close_frames_are_in_order(mask: bytes | None) -> None:
    frames = Frames(masked=mask is not None, message_bytes=0)
    data = close_frame(1001, "w" * 200, mask=mask)
    assert data == frame(8, b"\x03\xe9" + b"w" * 123, mask=mask)
    frames.follow(data)
    assert frames.closed
    assert frames.between


def test_a_reason_that_is_too_long_is_cut_between_two_characters() -> None:
    assert close_frame(1008, "w" + "ö" * 100) == frame(8, b"\x03\xf0w" + "ö".encode() * 61, mask=None)
