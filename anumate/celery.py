"""The Celery app, and every periodic job on one screen.

A tick that is late is worth nothing: each one expires before the next is due, so a worker that was away starts afresh.
"""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "anumate.settings")

app = Celery("anumate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def every(seconds: float, task: str) -> dict[str, object]:
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue="anumate",
    task_soft_time_limit=60,
    task_time_limit=90,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_soft_shutdown_timeout=3,
    worker_enable_remote_control=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": 120,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "global_keyprefix": "anumate:celery:",
    },
    timezone="UTC",
    beat_schedule={
        "sweep leases": every(1.0, "registry.tasks.sweep"),
        "project instances": every(1.0, "registry.tasks.project"),
        "republish sections": every(5.0, "registry.tasks.republish"),
        "forget services": every(600.0, "registry.tasks.forget"),
        "note the use of keys": every(10.0, "registry.tasks.note_key_usage"),
        "prune history": every(60.0, "registry.tasks.prune"),
        "check health": every(1.0, "health.tasks.tick"),
        "republish routes": every(5.0, "gateway.tasks.republish"),
    },
)
