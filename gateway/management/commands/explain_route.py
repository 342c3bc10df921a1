from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError

from anumate.lib.problem import Problem
from gateway.control.explain import explain
from registry.models import Tenant


class Command(BaseCommand):
    help = "Say which route takes a request, and why the others do not."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("target", help="A path like /orders/7?a=b, or a whole address with its host.")
        parser.add_argument("--method", default="GET")
        parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'")
        parser.add_argument("--tenant", default="default")

    def handle(self, *args: Any, **options: Any) -> None:
        if not Tenant.objects.filter(name=options["tenant"]).exists():
            raise CommandError(f"There is no tenant {options['tenant']}.")
        host, target = _split(options["target"])
        headers = [_header(text) for text in options["header"]]
        try:
            found = explain(
                options["tenant"], method=options["method"].upper(), host=host, target=target, headers=headers
            )
        except Problem as problem:
            raise CommandError(problem.detail) from None
        self.stdout.write(f"{found.route or 'no route'}: {found.sentence}")
        for verdict in found.verdicts:
            self.stdout.write(f"  {'>' if verdict.takes_it else ' '} {verdict.route}: {verdict.sentence}")
        for skipped in found.skipped:
            self.stdout.write(f"  ! {skipped}")


def _split(target: str) -> tuple[str, str]:
    """Host and request target of a path or an address."""
    if target.startswith("/"):
        return "", target
    parts = urlsplit(target)
    if not parts.netloc:
        raise CommandError(f"{target!r} is neither a path that starts with a slash nor an address.")
    return parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise CommandError(f"{text!r} is no header. Write it as 'Name: value'.")
    return name.strip(), value.strip()
