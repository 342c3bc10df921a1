"""`manage.py bootstrap`: see `anumate.bootstrap`. Its last line is JSON, for the supervisor."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from anumate.bootstrap import BootstrapError, bootstrap


class Command(BaseCommand):
    help = "Migrate, and make the first tenant, administrator and API key where they are missing."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--demo", action="store_true", help="Also make the demo's services, routes and policies.")

    def handle(self, *args: Any, demo: bool, **options: Any) -> None:
        try:
            first = bootstrap(settings.ENV, demo=demo)
        except BootstrapError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps({"first": first}))
