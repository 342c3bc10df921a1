from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from anumate.lib.redis import UNAVAILABLE, connect
from registry.importing import consul, eureka
from registry.importing.entries import BadEntry, Found
from registry.models import Tenant
from registry.services.changes import Actor
from registry.services.importing import register_all

PARSERS = {"consul": consul.parse, "eureka": eureka.parse}


class Command(BaseCommand):
    help = "Register what Consul or Eureka knows: its services, and their instances with a lease of a day."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("place", metavar="FILE|URL", help="A file of their JSON, or the address of the server.")
        parser.add_argument("--from", dest="source", choices=sorted(PARSERS), required=True)
        parser.add_argument("--tenant", default="default")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be registered.")

    def handle(self, *args: Any, place: str, source: str, tenant: str, dry_run: bool, **options: Any) -> None:
        owner = Tenant.objects.filter(name=tenant).first()
        if owner is None:
            raise CommandError(f"There is no tenant {tenant}.")
        try:
            instances = list(_distinct(PARSERS[source](_document(place, source))))
        except BadEntry as error:
            raise CommandError(f"{place}, {error}") from None
        for each in instances:
            self.stdout.write(_line(each))
        if not dry_run:
            self._register(owner, instances)
        services = len({each.registration.name for each in instances})
        told = f"{_counted(len(instances), 'instance')} of {_counted(services, 'service')}"
        self.stdout.write(f"{'Would register' if dry_run else 'Registered'} {told}.")

    def _register(self, owner: Tenant, instances: list[Found]) -> None:
        client = connect(settings.REDIS_URL)
        try:
            register_all(Actor.command("import_services"), owner, instances, client)
        except UNAVAILABLE as error:
            raise CommandError(f"The live state is away: {error}.") from None
        finally:
            client.close()


def _distinct(instances: Iterator[Found]) -> Iterator[Found]:
    seen = set()
    for each in instances:
        key = each.registration.key("")
        if key in seen:
            raise BadEntry("", f"{key.service}/{key.id} stands there twice.")
        seen.add(key)
        yield each


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _line(each: Found) -> str:
    registration = each.registration
    places = ", ".join(f"{one.protocol}://{one.host}:{one.port}" for one in registration.endpoints.values())
    state = f" (maintenance: {each.maintenance!r})" if each.maintenance else ""
    return f"{registration.name}/{registration.instance_id} {places}{state}"


def _document(place: str, source: str) -> Any:
    try:
        if not place.startswith(("http://", "https://")):
            return json.loads(Path(place).read_bytes())
        base = place.rstrip("/").removesuffix("/eureka/apps")
        with httpx.Client(base_url=base, headers={"Accept": "application/json"}, timeout=10.0) as http:
            return _consul(http) if source == "consul" else _get(http, "/eureka/apps")
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise CommandError(f"{place} cannot be read: {str(error).partition(chr(10))[0]}") from None


def _consul(http: httpx.Client) -> Any:
    """Service by service, by the endpoint that tells of maintenance too."""
    names = _get(http, "/v1/catalog/services")
    if not isinstance(names, dict):
        raise ValueError("this is no answer of Consul's catalogue.")
    return {name: _get(http, f"/v1/health/service/{quote(name, safe='')}") for name in names if name != consul.SERVERS}


def _get(http: httpx.Client, path: str) -> Any:
    return http.get(path).raise_for_status().json()
