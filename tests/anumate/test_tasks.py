"""Tasks that lose a cancellation end all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anumate.lib import tasks


async def deaf(times: int) -> None:
    """Goes on after it was cancelled so often, as what awaits `asyncio.wait_for` may."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not times:
                raise
            times -= 1


async def started(*jobs: Any) -> list[asyncio.Task[Any]]:
    found = [asyncio.create_task(job) for job in jobs]
    await asyncio.sleep(0)
    return found


async def test_a_task_is_cancelled_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    found = await started(deaf(0), deaf(3))
    await tasks.end(found)
    assert all(task.cancelled() for task in found)


async def test_who_is_cancelled_meanwhile_still_sees_the_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    found = await started(deaf(3))
    (ending,) = await started(tasks.end(found))
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert found[0].cancelled()


async def test_jobs_end_together_when_they_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    (running,) = await started(tasks.together(deaf(1), deaf(2)))
    await asyncio.sleep(0)
    await tasks.end([running])
    assert running.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_others_end_when_one_fails_and_its_error_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        await tasks.together(deaf(0), fails())
    assert asyncio.all_tasks() == {asyncio.current_task()}
