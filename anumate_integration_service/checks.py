"""What a service says of its own health: callbacks, asked before each heartbeat."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

HealthCheck = Callable[[], object | Awaitable[object]]

CHECK_TIMEOUT: Final = 5.0


async def report(checks: Iterable[HealthCheck]) -> dict[str, str]:
    """What a heartbeat carries: the worst that the callbacks say; nothing when there are none."""
    checks = list(checks)
    if not checks:
        return {}
    outputs = [output for check in checks if (output := await _ask(check))]
    return {"status": "unhealthy", "output": "; ".join(outputs)} if outputs else {"status": "healthy"}


async def _ask(check: HealthCheck) -> str:
    """Why the check says unhealthy; empty when it does not."""
    name = getattr(check, "__name__", type(check).__name__)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            if inspect.iscoroutinefunction(check):
                answer = await check()
            else:
                answer = await asyncio.to_thread(check)
                if inspect.isawaitable(answer):
                    answer = await answer
    except TimeoutError:
        return f"{name} did not answer in {CHECK_TIMEOUT:g} s"
    except Exception as error:
        return f"{name}: {error or type(error).__name__}"
    return f"{name} answered False" if answer is False else ""
