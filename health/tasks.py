"""Health's periodic jobs."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.conf import settings

from health import services


@shared_task(name="health.tasks.tick")
def tick() -> None:
    """A turn at the checks. Beat sends one each second; while one worker has the turn, the others return at once."""
    if settings.ENV.health_manager_enabled:
        services.worker().turn()


@worker_shutting_down.connect
def stop(**details: Any) -> None:
    """A turn in hand ends early, so that the worker is gone within its grace."""
    services.stopping.set()
