"""Periodic work of the registry. Beat sends each task; `anumate.celery` says how often."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import shared_task
from django.conf import settings

from anumate.lib.redis import UNAVAILABLE, connect
from registry.live.store import SyncStore
from registry.services import history, keys, projection, retention, sections

logger = logging.getLogger("anumate.tasks")

SWEEP_LIMIT = 500
MOST_SWEEPS = 20


@shared_task(ignore_result=True)
def sweep() -> None:
    """End lapsed leases, in steps that leave Redis free in between."""
    with _store() as client:
        store = SyncStore(client)
        for _ in range(MOST_SWEEPS):
            if len(store.sweep(SWEEP_LIMIT)) < SWEEP_LIMIT:
                return


@shared_task(ignore_result=True)
def project() -> None:
    """Write into rows what changed in the live state."""
    with _store() as client:
        projection.project(client)


@shared_task(ignore_result=True)
def republish() -> None:
    """An edit whose message was lost, or that was made while the store was away, arrives here."""
    with _store() as client:
        sections.publish_sections(client)


@shared_task(ignore_result=True)
def forget() -> None:
    """Drop what Redis still holds of services that have long been gone."""
    with _store() as client:
        retention.forget_services(client)


@shared_task(ignore_result=True)
def note_key_usage() -> None:
    """Write when keys were last used."""
    with _store() as client:
        keys.note_usage(client)


@shared_task(ignore_result=True)
def prune() -> None:
    """Drop what is too old of the history of instances."""
    history.prune()


@contextmanager
def _store() -> Iterator[redis.Redis]:
    """A store that is away is worth a line, not a traceback: the next tick is due in a moment."""
    try:
        with connect(settings.REDIS_URL) as client:
            yield client
    except UNAVAILABLE as error:
        logger.warning("The store is away: %s", error)
