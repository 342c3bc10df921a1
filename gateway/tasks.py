"""Periodic work of the gateway's control side."""

from __future__ import annotations

from celery import shared_task

from gateway.control.publish import publish_if_possible


@shared_task(ignore_result=True)
def republish() -> None:
    """An edit whose message was lost, or that was made while the store was away, arrives here."""
    publish_if_possible()
