from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from anumate_integration_service import snapshot as snapshots
from anumate_integration_service.client import DiscoveryClient, create_discovery_client
from anumate_integration_service.instances import Endpoint, ServiceInstance
from anumate_integration_service.snapshot import FORMAT, Snapshot, SnapshotFile
from tests.client.stand_in import stand_in
from tests.conftest import eventually

URL = "http://registry"
ORDERS = ServiceInstance(
    "orders",
    "orders-1",
    version="1.2",
    endpoints={"http": Endpoint("http", "127.0.0.1", 8000)},
    capabilities=("search",),
    tags=("a",),
    zone="z",
    weight=3,
    metadata={"k": "v"},
    status="healthy",
)


def looking(url: str, path: Path, **options: Any) -> DiscoveryClient:
    return create_discovery_client(registry_url=url, snapshot_path=path, **options)


def test_what_is_saved_is_read_again_and_only_the_owner_may(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "known.json", URL)
    file.write(Snapshot(1000.0, (ORDERS,)))
    assert file.read() == Snapshot(1000.0, (ORDERS,))
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["known.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        json.dumps({"format": FORMAT, "registry": "http://another", "heard_at": 1, "services": []}).encode(),
        json.dumps({"format": "other", "registry": URL, "heard_at": 1, "services": []}).encode(),
        json.dumps({"format": FORMAT, "registry": URL, "heard_at": 1, "services": [{"name": "orders"}]}).encode(),
        json.dumps({"format": FORMAT, "registry": URL, "heard_at": None, "services": []}).encode(),
    ],
)
def test_a_corrupt_or_foreign_file_is_ignored_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(content)
    assert SnapshotFile(path, URL).read() is None
    assert len(caplog.records) == 1


def test_a_file_that_is_too_large_is_neither_written_nor_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SnapshotFile(tmp_path / "known.json", URL)
    file.write(Snapshot(1.0, (ORDERS,)))
    monkeypatch.setattr(snapshots, "LARGEST", 100)
    assert file.read() is None
    file.write(Snapshot(2.0, (ORDERS,)))
    assert caplog.text.count("larger than 100 bytes") == 2


def test_a_directory_that_is_not_there_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    SnapshotFile(tmp_path / "away" / "known.json", URL).write(Snapshot(1.0, ()))
    assert "no snapshot was written" in caplog.text


async def test_a_restart_in_an_outage_finds_its_peers(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    async with stand_in() as registry, looking(registry.url, path, service_name="orders", http_port=8000) as client:
        assert len(client.instances("orders")) == 1
        await eventually(path.exists)
    async with looking(registry.url, path) as restarted:
        (found,) = restarted.instances("orders")
        assert found.url == "http://127.0.0.1:8000"
        assert restarted.age is not None
        assert await restarted.get_services() == (found,)


async def test_a_file_does_not_confirm_itself(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    SnapshotFile(path, "http://127.0.0.1:9").write(Snapshot(time.time() - 500, (ORDERS,)))
    before = path.read_bytes()
    async with looking("http://127.0.0.1:9", path, max_stale=400) as client:
        assert client.instances("orders") == (ORDERS,)
        assert client.is_stale
        assert client.age == pytest.approx(500, abs=30)
    assert path.read_bytes() == before


async def test_a_registry_that_answers_counts_for_more_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    async with stand_in() as registry:
        SnapshotFile(path, registry.url).write(Snapshot(time.time(), (ORDERS,)))
        async with looking(registry.url, path) as client:
            assert client.instances("orders") == ()


async def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANUMATE_SNAPSHOT", str(tmp_path / "known.json"))
    async with stand_in() as registry, create_discovery_client(registry_url=registry.url):
        pass
    assert json.loads((tmp_path / "known.json").read_bytes())["services"] == []
