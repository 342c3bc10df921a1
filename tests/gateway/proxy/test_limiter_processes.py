"""One bucket, several processes: the bound holds over all of them, and hardly a token is wasted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

import pytest
import redis

RATE: Final = 400.0
SECONDS: Final = 3.0

# Asks for more than its part all the time, and says when by the store's clock it began and ended, and how many it got.
WORKER: Final = """
import asyncio, json, sys, time
from anumate.lib.problem import Problem
from anumate.lib.redis import connect_async
from gateway.proxy.buckets import Policy
from gateway.proxy.limiter import Limiter
from gateway.proxy.table import RateLimit

async def main(url, name, rate, burst, seconds):
    client = connect_async(url)
    limiter = Limiter(lambda: client, name, store_time=lambda: "", workers=lambda: 3)
    policy = Policy(RateLimit("default", "gold", rate, burst, "key"))
    tidying = asyncio.create_task(limiter.run())
    admitted, first, last = 0, None, None
    async def store_time():
        second, micro = await client.time()
        return second + micro / 1e6
    print("ready", flush=True)
    sys.stdin.readline()
    first = await store_time()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(8):
            now = time.monotonic()
            try:
                token = limiter.take(limiter.bucket(policy, "k1", now), now)
                if token is not None:
                    await token
                admitted += 1
            except Problem:
                pass
        await asyncio.sleep(0.005)
    last = await store_time()
    tidying.cancel()
    await client.aclose()
    print(json.dumps([admitted, first, last]), flush=True)

url, name, rate, burst, seconds = sys.argv[1:]
asyncio.run(main(url, name, float(rate), int(burst), float(seconds)))
"""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("burst", [200, 600], ids=["without credit", "with credit"])
def test_processes_together_admit_what_the_policy_says_and_hardly_less(
    store: redis.Redis, redis_url: str, count: int, burst: int
) -> None:
    arguments = (str(RATE), str(burst), str(SECONDS))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, redis_url, f"w{number}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for number in range(count)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        answers = [worker.communicate(timeout=30)[0] for worker in _started(workers)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    told = [json.loads(answer) for answer in answers]
    admitted = sum(each[0] for each in told)
    lasted = max(each[2] for each in told) - min(each[1] for each in told)
    bound = burst + RATE * lasted
    assert admitted <= bound
    assert admitted >= 0.95 * bound


def _started(workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers
