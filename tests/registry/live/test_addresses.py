from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.live.addresses import Refused, refusal, resolve


@pytest.mark.parametrize(
    "host",
    ["localhost", "orders", "orders.svc.cluster.local", "my_service", "127.0.0.1", "10.0.0.7", "::1", "fd00::7", "a."],
)
def test_loopback_private_and_named_hosts_are_welcome(host: str) -> None:
    assert refusal(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "::1%lo",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "100.100.100.200",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "0.0.0.0",  # noqa: S104
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "127.1",
        "",
        ".",
        "a..b",
        "-a",
        "a b",
        "a/b",
        "a@b",
        "a\n",
        "http://a",
        "x" * 64,
        "münchen",
    ],
)
def test_what_leads_to_metadata_or_to_no_single_machine_is_refused(host: str) -> None:
    assert refusal(host)


@given(st.ip_addresses(v=4, network="169.254.0.0/16") | st.ip_addresses(v=6, network="fe80::/10"))
def test_no_link_local_address_passes(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert refusal(str(address))
    if address.version == 4:
        assert refusal(f"::ffff:{address}")


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    assert refusal(text) is None or refusal(text).endswith(".")  # type: ignore[union-attr]


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have the machine's resolver say this of every name, as an attacker's would."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_a_name_that_means_a_metadata_service_by_now_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "169.254.169.254")
    with pytest.raises(Refused, match="Link-local"):
        await resolve("orders.example.com")


async def test_of_several_addresses_only_the_permitted_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "169.254.169.254", "10.0.0.7")
    assert await resolve("orders.example.com") == ["10.0.0.7"]
