from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from anumate.faces.configuration.asking import command_asker
from anumate.faces.configuration.exporting import export
from anumate.faces.configuration.writing import write


class Command(BaseCommand):
    help = "Write the configuration of a tenant as YAML, without secrets."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", default="default")

    def handle(self, *args: Any, tenant: str, **options: Any) -> None:
        self.stdout.write(write(export(command_asker("export_config", tenant))), ending="")
