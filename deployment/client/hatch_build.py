"""Which files of the package the client is: all but the command line, the demo, and the doors to the platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "anumate_integration_service"
LEFT_OUT = {"cli", "app.py", "demo.py"}


class ClientFiles(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        house = Path(self.root).parents[1]
        for path in sorted((house / PACKAGE).rglob("*")):
            inside = path.relative_to(house / PACKAGE)
            if path.suffix in {".py", ".typed"} and inside.parts[0] not in LEFT_OUT:
                build_data["force_include"][str(path)] = f"{PACKAGE}/{inside.as_posix()}"
