"""The small distribution: built as a user gets it, and imported where nothing but httpx is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests import environment

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("httpx", "httpcore", "h11", "anyio", "idna", "certifi", "typing_extensions.py", "sniffio")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("pip") is None,
    reason="building the wheel needs hatchling and pip, which `make install` brings",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    command += ["-w", str(into), str(ROOT / "deployment/client")]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = into.glob("anumate_client-*.whl")
    return built


def test_it_holds_the_clients_files_and_asks_for_httpx_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(metadata).decode())
    files = {name for name in names if ".dist-info/" not in name}
    assert all(name.startswith("anumate_integration_service/") for name in files)
    assert {"client.py", "transports.py", "py.typed", "pytest_plugin.py"} <= {Path(name).name for name in files}
    assert not [name for name in files if "/cli/" in name or name.endswith(("/app.py", "/demo.py"))]
    assert [name.split(">")[0] for name in told.get_all("Requires-Dist", [])] == ["httpx"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert told["Version"] == version


def test_it_works_in_an_environment_without_django(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    venv.create(home, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    installed = Path(sysconfig.get_path("purelib"))
    for name in NEEDED:
        if (installed / name).exists():
            (packages / name).symlink_to(installed / name)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    code = """
import importlib.util, json, sys
import anumate_integration_service as package
from anumate_integration_service.testing import FakeRegistry
package.AnumateTransport(FakeRegistry())
client = package.create_discovery_client(service_name="orders", http_port=8000)
for name in package.__all__:
    getattr(package, name)
print(json.dumps([client.service_name, importlib.util.find_spec("django"), package.__file__]))
"""
    done = subprocess.run(
        [str(home / "bin" / "python"), "-I", "-c", code],
        cwd=tmp_path,
        env=environment.BARE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    service, django, path = json.loads(done.stdout)
    assert (service, django) == ("orders", None)
    assert Path(path).is_relative_to(home)
