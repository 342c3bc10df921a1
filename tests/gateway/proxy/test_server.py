"""What arrives on a client's connection: how large it may be, how long it may take, and what cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.proxy import connections, door
from gateway.proxy.policies import Limits
from gateway.proxy.request import USUAL
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route
from tests.gateway.proxy.test_upstream_tls import Authority


def request_of(world: World, path: str = "/orders", more: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{more}\r\n".encode("latin-1")


def problem_in(answer: bytes) -> tuple[int, str]:
    """Status and code of the one problem that an answer consists of."""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"connection"] == b"close"
    problem = json.loads(body)
    assert fields[b"x-request-id"].decode() == problem["request_id"]
    return int(head.split(b" ")[1]), problem["code"]


async def refusal(gateway: Running, data: bytes) -> tuple[int, str]:
    """What the gateway says before it closes the connection, which it does by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return problem_in(answer)


def fields(count: int, size: int) -> str:
    return "".join(f"X-{n}: {'v' * size}\r\n" for n in range(count))


@pytest.mark.parametrize(
    ("make", "refused"),
    [
        (lambda w: request_of(w, "/orders/" + "x" * USUAL.url), (414, "uri_too_long")),
        (lambda w: b"GET /" + b"x" * USUAL.url, (414, "uri_too_long")),
        (lambda w: request_of(w, more=fields(1, USUAL.field_bytes)), (431, "headers_too_large")),
        (lambda w: request_of(w, more=fields(40, 1000)), (431, "headers_too_large")),
        (lambda w: request_of(w, more=fields(USUAL.fields, 1)), (431, "headers_too_large")),
        (lambda w: request_of(w)[:-2] + b"X: " + b"x" * USUAL.unread, (431, "headers_too_large")),
        (lambda w: request_of(w)[:-2] + b"x" * USUAL.unread, (431, "headers_too_large")),
        (lambda w: b"\r\n" * USUAL.unread, (431, "headers_too_large")),
        (lambda w: b"nonsense\r\n\r\n", (400, "malformed_request")),
        (lambda w: b"\x16\x03\x01\x02\x00\x01\x00", (400, "malformed_request")),
        (lambda w: request_of(w, more="X Y: a\r\n"), (400, "malformed_request")),
    ],
)
async def test_what_is_too_large_or_cannot_be_read_is_refused_as_a_problem(
    gateway: Running, world: World, service: Service, make: Callable[[World], bytes], refused: tuple[int, str]
) -> None:
    assert await refusal(gateway, make(world)) == refused
    assert not service.calls


async def test_a_request_as_large_as_it_may_be_is_served(gateway: Running, world: World) -> None:
    path = "/orders/" + "x" * (USUAL.url - len("/orders/"))
    more = fields(USUAL.fields - 2, (USUAL.field_bytes - 200) // USUAL.fields - 8)
    one = request_of(world, path, more)
    answer = await gateway.raw(one + one + one, answers=3)
    assert answer.count(b"HTTP/1.1 200 ") == 3, answer


@pytest.mark.parametrize("cut", [0, 1])  # the short way, and the long one
async def test_the_limits_of_a_head_are_those_of_the_environment(world: World, service: Service, cut: int) -> None:
    gateway = await world.gateway(gateway_max_url_bytes=40, gateway_max_headers=5, gateway_max_header_bytes=8192)
    await gateway.knows("orders", 1)

    async def status(data: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(data[:cut])
        if cut:
            await eventually(lambda: any(each._unread for each in gateway.connections), what="the first byte")
        writer.write(data[cut:])
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return int(head[9:12])

    assert await status(request_of(world, "/orders/" + "x" * 32, fields(3, 1))) == 200
    assert await status(request_of(world, "/orders/" + "x" * 33)) == 414
    assert await status(request_of(world, "/orders?" + "x" * 33)) == 414
    assert await status(request_of(world, more=fields(4, 1))) == 431
    assert await status(request_of(world, more=fields(1, 7000))) == 200
    assert await status(request_of(world, more=fields(1, 8192))) == 431


async def test_a_body_does_not_count_as_fields_nor_what_follows_it_as_the_body(gateway: Running, world: World) -> None:
    size = 3 * USUAL.unread
    post = request_of(world, more=f"Content-Length: {size}\r\n", method="POST") + b"x" * size
    assert (await gateway.raw(post + request_of(world), answers=2)).count(b"HTTP/1.1 200 ") == 2


async def test_a_trailer_does_not_pass_for_a_field_of_the_head(gateway: Running, world: World) -> None:
    head = "POST /orders HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await gateway.raw(head.encode() + f"1\r\na\r\n0\r\nX-API-Key: {world.key}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 "), answer


async def test_a_request_before_a_malformed_one_gets_its_own_answer(
    gateway: Running, world: World, service: Service
) -> None:
    answer = await gateway.raw(request_of(world) + b"nonsense\r\n\r\n", answers=2)
    first, _, second = answer.partition(b"okHTTP/1.1 ")
    assert first.startswith(b"HTTP/1.1 200 "), answer
    assert problem_in(b"HTTP/1.1 " + second) == (400, "malformed_request")


ENDLESS = b"x" * (2 * USUAL.unread)


@pytest.mark.parametrize("rest", [b"nonsense\r\n", b"1;" + ENDLESS, b"0\r\nX: " + ENDLESS])
async def test_a_body_that_turns_out_malformed_or_all_frame_ends_its_request(
    gateway: Running, world: World, service: Service, rest: bytes
) -> None:
    async def wait(call: Call) -> None:
        await call.reader.read()

    service.handler = wait
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request_of(world, more="Transfer-Encoding: chunked\r\n", method="POST") + b"1\r\na\r\n")
    await eventually(lambda: service.calls, what="the request to arrive")
    writer.write(rest)
    async with asyncio.timeout(5):
        assert problem_in(await reader.read()) == (400, "malformed_request")
    await eventually(lambda: service.open == 0, what="the service's connection to end")
    assert gateway.app.guard.report(0.0).breakers[0].failures == 0
    writer.close()


PIECE = b"4000\r\n" + b"z" * 0x4000 + b"\r\n"


@pytest.mark.parametrize(
    ("framing", "begun"),
    [
        ("Transfer-Encoding: chunked\r\n", PIECE),
        ("Content-Length: 1000000\r\n", b"z" * 0x4000),
        ("Content-Length: 1000000\r\n", b""),
    ],
    ids=["chunked", "with a length", "nothing of it yet"],
)
async def test_an_upload_that_is_too_large_does_not_cost_its_client_the_answer(
    world: World, service: Service, framing: str, begun: bytes
) -> None:
    world.publish(a_route(limits=Limits(body_bytes=1000)))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, request_of(world, more=framing, method="POST") + begun)

        def answered() -> bool:
            with contextlib.suppress(BlockingIOError):
                return bool(client.recv(1, socket.MSG_PEEK))
            return False

        await eventually(answered, what="the answer to be there")
        for _ in range(10):
            await loop.sock_sendall(client, PIECE)
            await asyncio.sleep(0)
        answer = b""
        async with asyncio.timeout(5):
            while piece := await loop.sock_recv(client, 65536):
                answer += piece
        assert problem_in(answer) == (413, "payload_too_large")
    await eventually(lambda: not gateway.connections, what="the connection to end")


@pytest.mark.parametrize("begun", [b"G", b"\r\n", b"GET /orders HTTP/1.1\r\nHost: h\r\n"])
async def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(world: World, begun: bytes) -> None:
    gateway = await world.gateway(gateway_head_seconds=0.1)
    assert await refusal(gateway, begun) == (408, "request_timeout")


async def test_a_head_may_come_in_pieces(gateway: Running, world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for byte in request_of(world):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_who_connects_and_says_nothing_is_not_kept(world: World, service: Service) -> None:
    gateway = await world.gateway()
    gateway._server.config.timeout_keep_alive = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


@pytest.fixture
def https(tmp_path: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """Options of a server that has a certificate, and what its clients need."""
    authority = Authority()
    identity = authority.identity("127.0.0.1")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_text(identity.certificate)
    key.write_text(identity.key)
    options = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    return options, ssl.create_default_context(cadata=authority.certificate)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"])
async def test_who_does_not_agree_on_tls_is_not_kept(
    world: World, service: Service, https: tuple[dict[str, str], ssl.SSLContext], said: bytes
) -> None:
    gateway = await world.gateway(https[0], gateway_head_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(said)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await reader.read()
    writer.close()
    await eventually(lambda: not gateway.app.connections.knocking, what="the connection to be let go of")
    assert not gateway.connections


async def test_connections_that_have_yet_to_agree_on_tls_are_counted(
    world: World, service: Service, https: tuple[dict[str, str], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGERING", 1)
    gateway = await world.gateway(https[0], gateway_max_connections=2)
    await gateway.knows("orders", 1)
    held = gateway.app.connections
    silent = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]
    await eventually(lambda: len(held.knocking) == 3, what="those that say nothing to be there")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    for _, each in silent:
        each.close()
    await eventually(lambda: not held.knocking, what="them to be gone")

    there = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=https[1])
        writer.write(request_of(world))
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
        there.append(writer)
    assert (len(held.open), len(held.knocking)) == (2, 0)
    assert [call.one("x-forwarded-proto") for call in service.calls] == ["https", "https"]
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=https[1])
    async with asyncio.timeout(5):
        assert problem_in(await reader.read()) == (503, "overloaded")
    for each in (*there, writer):
        each.close()
    await eventually(lambda: not held.open, what="all to be gone")


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_not_lost(
    world: World, service: Service, https: tuple[dict[str, str], ssl.SSLContext]
) -> None:
    gateway = await world.gateway(https[0])
    await gateway.knows("orders", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = https[1].wrap_bio(heard, said, server_hostname="127.0.0.1")
    answer = b""
    async with asyncio.timeout(5):
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(said.read())
                heard.write(await reader.read(65536))
        client.write(request_of(world))
        writer.write(said.read())
        while not answer.endswith(b"\r\n\r\nok"):
            heard.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    answer += client.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_drain_waits_for_who_has_yet_to_agree_on_tls_and_answers_one_request(
    world: World,
    service: Service,
    https: tuple[dict[str, str], ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = await world.gateway(https[0])
    await gateway.knows("orders", 1)
    stop, stopped = gateway.app.stop, asyncio.Event()

    async def noted() -> None:
        stopped.set()
        await stop()

    monkeypatch.setattr(gateway.app, "stop", noted)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    await eventually(lambda: gateway.app.connections.knocking, what="the connection to be there")
    gateway.drain()
    await eventually(lambda: gateway.app.node.leaving, what="the drain to begin")
    async with asyncio.timeout(5):
        await writer.start_tls(https[1], server_hostname="127.0.0.1")
        writer.write(request_of(world))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert not stopped.is_set()
        await gateway.ended()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b"\r\nconnection: close\r\n" in answer
    writer.close()


@pytest.mark.parametrize("seconds", [30.0, 0.1])
async def test_a_drain_does_not_wait_for_ever_for_who_says_nothing_about_tls(
    world: World,
    service: Service,
    https: tuple[dict[str, str], ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    monkeypatch.setattr(door, "LAST_SECONDS", 0.1 if seconds > 1 else 30.0)
    gateway = await world.gateway(https[0], gateway_drain_seconds=seconds)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    await eventually(lambda: gateway.app.connections.knocking, what="the connection to be there")
    gateway.drain()
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await gateway.ended()
    assert not gateway.app.connections.knocking
    writer.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def test_it_serves_under_gunicorn(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    argv = ("-m", "gunicorn", "anumate_integration_service.app:gateway", "--workers=1", f"--bind=127.0.0.1:{port}")
    env = {**os.environ, "REDIS_URL": redis_url, "ANUMATE_HOME": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, "--worker-class=gateway.proxy.worker.GatewayWorker", "--no-control-socket", env=env
    )

    async def says(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()

    try:
        async with asyncio.timeout(30):
            alive = b""
            while not alive:
                try:
                    alive = await says(b"GET /-/livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                except OSError:
                    await asyncio.sleep(0.05)
            assert alive.startswith(b"HTTP/1.1 200 ")
            assert problem_in(await says(b"GET /" + b"x" * USUAL.url)) == (414, "uri_too_long")
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
