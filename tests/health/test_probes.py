from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from health.probes import Resolver, Target, probe
from health.verdict import Outcome
from tests.health.servers import Handler, answering, closed_port, hang, reset, serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def http(
    port: int, *, path: str = "/health", timeout: float = 2.0, host: str = "127.0.0.1", tls: bool = False
) -> Target:
    return Target("http", host, port, timeout, path, tls)


async def ask(handler: Handler, **options: object) -> Outcome:
    async with serve(handler) as port:
        return await probe(http(port, **options), Resolver())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "passed"), (204, "passed"), (429, "warned"), (500, "failed"), (503, "failed"), (404, "failed")],
)
async def test_2xx_passes_429_warns_and_all_else_fails(status: int, kind: str) -> None:
    outcome = await ask(answering(f"HTTP/1.1 {status} Word\r\nConnection: close\r\n\r\n".encode()))
    assert (outcome.kind, outcome.status) == (kind, status)
    assert outcome.sentence.startswith(f"GET /health answered {status}")
    assert 0 < outcome.latency < 2


async def test_it_asks_politely_and_hangs_up() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        heard.append(await reader.read())

    async with serve(listen) as port:
        await probe(http(port, path="/up?deep=1"), Resolver())
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /up?deep=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines
    assert heard[1] == b""


async def test_a_path_cannot_smuggle_a_second_header() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    await ask(listen, path="/a HTTP/1.1\r\nX-Evil: 1\r\n\r\n")
    assert b"\r\nX-Evil" not in heard[0]


async def test_it_does_not_follow_redirects() -> None:
    visited: list[int] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append(1)

    async with serve(elsewhere) as other:
        outcome = await ask(answering(f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/\r\n\r\n".encode()))
    assert outcome.kind == "failed"
    assert "redirect" in outcome.sentence
    assert visited == []


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (reset, "GET /health: the connection was reset"),
        (answering(b""), "GET /health: the connection was closed before an answer"),
        (answering(b"SSH-2.0-OpenSSH_9.6\r\n"), "GET /health: the answer is not HTTP"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n"), "GET /health: the answer is not HTTP"),
        (answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "GET /health: the head of the answer is too large"),
    ],
    ids=["reset", "closed", "garbage", "bad length", "endless head"],
)
async def test_it_fails_with_a_sentence_on(handler: Handler, said: str) -> None:
    outcome = await ask(handler)
    assert (outcome.kind, outcome.sentence) == ("failed", said)


async def test_it_gives_up_when_its_time_is_over() -> None:
    started = time.monotonic()
    outcome = await ask(hang, timeout=0.2)
    assert time.monotonic() - started < 1.5
    assert (outcome.kind, outcome.sentence) == ("failed", "GET /health: no answer within 0.2 s")


async def test_an_answer_that_drips_byte_by_byte_does_not_hold_it_for_ever() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    started = time.monotonic()
    assert (await ask(drip, timeout=0.3)).kind == "failed"
    assert time.monotonic() - started < 1.5


async def test_a_huge_body_is_not_read_to_its_end() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    outcome = await ask(pour)
    assert outcome.kind == "passed"
    assert sent < 50_000_000


async def test_a_body_that_never_ends_does_not_turn_a_200_into_a_failure() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await asyncio.sleep(60)

    outcome = await ask(stall, timeout=5.0)
    assert outcome.kind == "passed"
    assert outcome.latency < 1


async def test_early_hints_are_not_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    outcome = await ask(answering(hints + b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"))
    assert outcome.status == 500


async def test_nobody_there_is_a_failure() -> None:
    for kind in ("http", "tcp"):
        outcome = await probe(Target(kind, "127.0.0.1", closed_port(), 1.0, "/"), Resolver())  # type: ignore[arg-type]
        assert outcome.kind == "failed"
        assert "refused" in outcome.sentence


async def test_a_tcp_check_passes_when_a_connection_opens() -> None:
    async with serve(hang) as port:
        outcome = await probe(Target("tcp", "127.0.0.1", port, 1.0), Resolver())
    assert (outcome.kind, outcome.sentence) == ("passed", f"127.0.0.1:{port} accepts connections")


async def test_a_name_with_several_addresses_is_tried_until_one_answers() -> None:
    async with serve(answering(OK)) as port:  # on 127.0.0.1 only; localhost may be ::1 first
        assert (await probe(http(port, host="localhost"), Resolver())).kind == "passed"


async def test_an_unknown_name_is_a_failure() -> None:
    outcome = await probe(http(80, host="nobody.invalid"), Resolver())
    assert (outcome.kind, outcome.sentence) == ("failed", "The name nobody.invalid has no address")


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254"]
)
async def test_it_never_asks_link_local_or_metadata_addresses(address: str) -> None:
    outcome = await probe(http(80, host=address, timeout=0.5), Resolver())
    assert outcome.kind == "failed"
    assert "never asked" in outcome.sentence or "no host name" in outcome.sentence


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fd00::1"])
async def test_loopback_and_private_addresses_may_be_asked(address: str) -> None:
    assert await Resolver().addresses(address) == [address]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed; it makes the certificate")
async def test_https_is_asked_without_asking_who_it_is(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=elsewhere -days 1 -keyout {key} -out {certificate}"
    subprocess.run(made.split(), check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with serve(answering(OK), ssl=context) as port:
        assert (await probe(http(port, tls=True), Resolver())).kind == "passed"
    async with serve(answering(b"plain\r\n")) as port:
        outcome = await probe(http(port, tls=True), Resolver())
    assert outcome.kind == "failed"
