"""What is written in YAML is true of the code: variables that exist, programs that start, paths that are answered."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from anumate.lib.env import Env

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "deployment" / "kubernetes").glob("*.yaml"))
VARIABLES = {field.metadata["name"] for field in fields(Env)}
PROGRAMS = {"gunicorn", "celery", "django-admin"}


def documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def containers() -> list[dict[str, Any]]:
    pods = [each["spec"]["template"]["spec"] for each in documents() if "template" in each.get("spec", {})]
    return [container for pod in pods for container in pod.get("initContainers", []) + pod["containers"]]


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


def commands() -> list[list[str]]:
    ours = [each for each in compose()["services"].values() if each["image"].startswith("anumate/")]
    return [each["command"] for each in [*ours, *containers()] if each.get("command", [""])[0] in PROGRAMS]


def test_every_part_runs_in_compose() -> None:
    assert set(compose()["services"]) == {"bootstrap", "web", "gateway", "worker", "beat", "valkey", "postgres"}


def test_every_variable_that_is_set_exists() -> None:
    config = next(each for each in documents() if each["kind"] == "ConfigMap")
    assert set(config["data"]) <= VARIABLES
    assert set(compose()["x-platform"]["environment"]) <= VARIABLES


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_names_something_of_ours(command: list[str]) -> None:
    match command:
        case ["gunicorn", app, *_]:
            module, _, attribute = app.partition(":")
            assert module == "anumate_integration_service.app"
            assert attribute in {"app", "gateway"}
        case ["celery", "--app=anumate.celery", "worker" | "beat", *_]:
            pass
        case ["django-admin", name]:
            assert name in get_commands()
        case _:
            pytest.fail(f"unknown command {command}")


def test_pods_ask_for_nothing_they_do_not_need() -> None:
    for container in containers():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
