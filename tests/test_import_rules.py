"""The house's walls: which package may know of which. docs/architecture.md says why."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("anumate", "anumate_integration_service", "registry", "health", "gateway")

# Longest prefix decides. A module may import its own package and what stands here.
ALLOWED: dict[str, tuple[str, ...]] = {
    "anumate": OURS,
    "anumate.lib": ("anumate.lib",),
    "anumate_integration_service": ("anumate_integration_service",),
    # The two doors to the platform; what they import, they import inside a function.
    "anumate_integration_service.app": ("anumate_integration_service", "anumate", "gateway.proxy"),
    "anumate_integration_service.cli.start": ("anumate_integration_service", "anumate"),
    "registry": ("registry", "anumate.lib"),
    "registry.live": ("registry.live", "registry.names", "anumate.lib"),
    "health": ("health", "registry", "anumate.lib"),
    "gateway": ("gateway", "registry", "anumate_integration_service.breaker", "anumate.lib"),
    "gateway.proxy": (
        "gateway.proxy",
        "registry.live",
        "anumate_integration_service.balancing",
        "anumate_integration_service.breaker",
        "anumate_integration_service.pacing",
        "anumate_integration_service.retries",
        "anumate.lib",
    ),
}
# What the control side may know of the data plane: the table's shape, the one matcher and what it reads, the one check
# of callers, what workers report.
CONTROL_SEES = (
    "gateway.proxy.auth",
    "gateway.proxy.canary",
    "gateway.proxy.cors",
    "gateway.proxy.entitlement",
    "gateway.proxy.exchange",
    "gateway.proxy.fields",
    "gateway.proxy.jwks",
    "gateway.proxy.options",
    "gateway.proxy.paths",
    "gateway.proxy.patterns",
    "gateway.proxy.policies",
    "gateway.proxy.reports",
    "gateway.proxy.rewriting",
    "gateway.proxy.router",
    "gateway.proxy.selection",
    "gateway.proxy.table",
    "gateway.proxy.tls",
    "gateway.proxy.tokens",
)
# What a Django project puts into its INSTALLED_APPS; nothing of ours imports it.
FOR_DJANGO = "anumate_integration_service.integrations.django"
DJANGO_FREE = ("anumate.lib", "anumate_integration_service", "registry.live", "gateway.proxy")


def modules() -> dict[str, Path]:
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def rule_of(module: str) -> tuple[str, ...]:
    return ALLOWED[max((prefix for prefix in ALLOWED if within(module, prefix)), key=len)]


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_only_what_its_place_allows(module: str) -> None:
    allowed = rule_of(module)
    for name in imports(modules()[module]):
        if name.split(".")[0] in OURS:
            assert any(within(name, package) for package in allowed), f"{module} imports {name}"
        if any(within(module, package) for package in DJANGO_FREE) and "cli" not in module and module != FOR_DJANGO:
            assert name.split(".")[0] not in {"django", "rest_framework", "celery", "channels"}, f"{module}: {name}"


@pytest.mark.parametrize("module", sorted(name for name in modules() if within(name, "gateway")))
def test_only_the_data_plane_knows_the_data_plane(module: str) -> None:
    if within(module, "gateway.proxy"):
        return
    for name in imports(modules()[module]):
        if within(name, "gateway.proxy"):
            assert any(within(name, seen) for seen in CONTROL_SEES), f"{module} imports {name}"


@pytest.mark.parametrize("door", ["gateway.proxy.app", "anumate_integration_service", "registry.live.node"])
def test_a_fresh_interpreter_does_not_load_django_with(door: str) -> None:
    code = f"import {door}, sys; sys.exit('django' in sys.modules or 'celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
