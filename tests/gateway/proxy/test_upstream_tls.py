"""Instances behind TLS: believed only with the right certificate, and shown ours where they ask."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from anumate.lib.sealing import seal
from gateway.proxy.live import Compiled
from gateway.proxy.policies import Address, Tls
from gateway.proxy.table import RoutingTable, Upstream, encode
from gateway.proxy.tls import TLS_KEYS
from tests.gateway.proxy.conftest import PEPPER, Running, Service, World, a_route


class Identity(NamedTuple):
    certificate: str
    key: str


class Authority:
    """Issues certificates for a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.certificate = self._issue(self._name, self._key, authority=True)

    def identity(self, host: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(self._issue(name, key, host), secret.decode())

    def _issue(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, host: str = "", *, authority: bool = False
    ) -> str:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        if host:
            other = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([other]), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def server_side(path: Path, identity: Identity, clients: Authority | None = None) -> ssl.SSLContext:
    file = path / "server.pem"
    file.write_text(identity.certificate + identity.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    if clients is not None:
        context.load_verify_locations(cadata=clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def reached(world: World, context: ssl.SSLContext, tls: Tls, key: str = "") -> Running:
    service = await Service().start(context=context)
    world.services.append(service)
    places = (Address("127.0.0.1", service.port, "https"),)
    upstream = Upstream("default", "orders", addresses=places, tls=tls, tls_key=key)
    world.publish(a_route(), upstreams=(upstream,))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    return gateway


async def test_an_instance_with_the_right_certificate_is_believed(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    context = server_side(tmp_path, authority.identity("127.0.0.1"))
    gateway = await reached(world, context, Tls(authorities=authority.certificate))
    assert [(await gateway.client.post("/orders", content=b"x" * 100_000)).status_code for _ in range(3)] == [200] * 3
    assert world.services[0].connections == 1


@pytest.mark.parametrize("fault", ["authority", "name"])
async def test_one_with_another_is_not(world: World, authority: Authority, tmp_path: Path, fault: str) -> None:
    identity = authority.identity("other.example" if fault == "name" else "127.0.0.1")
    tls = Tls(authorities=authority.certificate) if fault == "name" else Tls()
    gateway = await reached(world, server_side(tmp_path, identity), tls)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_untrusted")
    assert not world.services[0].calls


async def test_the_name_that_is_verified_may_be_given(world: World, authority: Authority, tmp_path: Path) -> None:
    context = server_side(tmp_path, authority.identity("orders.internal"))
    gateway = await reached(world, context, Tls(authorities=authority.certificate, server_name="orders.internal"))
    assert (await gateway.get()).status_code == 200


async def test_verification_can_be_left_off_for_trials(world: World, authority: Authority, tmp_path: Path) -> None:
    gateway = await reached(world, server_side(tmp_path, authority.identity("other.example")), Tls(verify=False))
    assert (await gateway.get()).status_code == 200


async def test_an_instance_that_asks_who_we_are_is_shown_our_certificate(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    ours = authority.identity("gateway")
    context = server_side(tmp_path, authority.identity("127.0.0.1"), authority)
    tls = Tls(authorities=authority.certificate, certificate=ours.certificate)
    gateway = await reached(world, context, tls, seal(PEPPER, TLS_KEYS, ours.key))
    assert (await gateway.get()).status_code == 200


async def test_without_ours_it_lets_nobody_in(world: World, authority: Authority, tmp_path: Path) -> None:
    context = server_side(tmp_path, authority.identity("127.0.0.1"), authority)
    gateway = await reached(world, context, Tls(authorities=authority.certificate))
    assert (await gateway.get()).status_code == 502


async def test_a_plain_service_behind_an_https_address_is_a_failure_in_words(world: World) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    places = (Address("127.0.0.1", server.sockets[0].getsockname()[1], "https"),)
    world.publish(a_route(), upstreams=(Upstream("default", "orders", addresses=places),))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_connect_failed")
    server.close()


def test_settings_that_cannot_be_used_never_turn_verification_off(authority: Authority) -> None:
    bad = Upstream("default", "orders", tls=Tls(verify=False, certificate=authority.certificate), tls_key="nonsense")
    compiled = Compiled(encode(RoutingTable(1, (), (bad,))), PEPPER)
    assert compiled.secure["default", "orders"].context.verify_mode is ssl.CERT_REQUIRED
    assert [each.name for each in compiled.skipped] == ["orders"]
