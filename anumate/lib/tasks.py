"""Tasks that end when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

AGAIN_SECONDS: Final = 0.1


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these tasks until all have ended, whatever they end with.

    Once is not enough: before Python 3.12, `asyncio.wait_for` loses a cancellation that comes just as it ends, and
    redis-py sends every command by it.
    """
    everyone = pending = set(tasks)
    cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
        except asyncio.CancelledError:
            cancelled = True  # ourselves; they are ended first
    for task in everyone:
        if not task.cancelled():
            task.exception()  # or asyncio would complain that nobody asked
    if cancelled:
        raise asyncio.CancelledError


async def together(*jobs: Coroutine[Any, Any, Any]) -> None:
    """Run these until one fails, and end the others then. As `asyncio.TaskGroup`, which cancels its tasks but once."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await end(tasks)
