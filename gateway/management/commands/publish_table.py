from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from anumate.lib.redis import UNAVAILABLE
from gateway.control.publish import publish


class Command(BaseCommand):
    help = "Compile the routing table from the database and publish it to the gateway's workers."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            published = publish()
        except UNAVAILABLE as error:
            raise CommandError(f"The store is away: {error}") from None
        for skipped in published.skipped:
            self.stderr.write(str(skipped))
        what = "published" if published.stored else "is what the gateway has already"
        self.stdout.write(f"Revision {published.revision} with {published.routes} routes {what}.")
