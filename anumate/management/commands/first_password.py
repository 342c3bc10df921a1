"""`manage.py first_password`: for the supervisor, which shows the password. Its last line is JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand

from anumate.bootstrap import give_password


class Command(BaseCommand):
    help = "Give the first administrator the password on standard input, unless they have one."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(json.dumps({"username": give_password(sys.stdin.read())}))
