from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from anumate.faces.configuration.asking import command_asker
from anumate.faces.configuration.importing import Rejected, apply
from anumate.faces.configuration.reading import MAX_BYTES, Unreadable, read
from anumate_integration_service.cli import changes


class Command(BaseCommand):
    help = "Make the configuration of a tenant what a YAML file says: all of it, or nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="What export_config wrote; - is the standard input.")
        parser.add_argument("--tenant", default="default")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would change.")
        parser.add_argument(
            "--prune", action="store_true", help="Also remove what is absent from the sections that the file has."
        )

    def handle(self, *args: Any, file: str, tenant: str, dry_run: bool, prune: bool, **options: Any) -> None:
        asker = command_asker("import_config", tenant)
        try:
            made = apply(asker, read(_content(file)), prune=prune, dry_run=dry_run)
        except (Unreadable, Rejected) as error:
            raise CommandError(f"{file}, {error}") from None
        shown = [entry.as_json() for entry in made]
        for line in changes.lines(shown):
            self.stdout.write(line)
        self.stdout.write(f"{f'Would {changes.intent(shown)}' if dry_run else changes.outcome(shown)}.")


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
