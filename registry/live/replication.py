"""Operations that count only once replicas have them too: their scripts and one `WAIT`, in one round trip.

`WAIT` speaks of the writes of its own connection, to the server that this connection leads to. So it is sent behind
the scripts on the very connection that carried them: a fail-over between the two breaks the connection, and never lets
a new primary vouch for what only the old one had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis
import redis.asyncio as aioredis
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import MovedError, NoScriptError

from registry.live.ops import SEQ, Op

WAIT_SECONDS: Final = 1.0

Command = tuple[Any, ...]


class NotReplicated(redis.ConnectionError):
    """The primary did as asked, but too few replicas said so in time. Ask again: what is sent here is idempotent."""


class Replicated:
    """Sends batches of operations and answers once `replicas` servers besides the primary have them."""

    def __init__(self, client: aioredis.Redis, replicas: int, seconds: float = WAIT_SECONDS) -> None:
        self._redis: Any = client
        self._replicas = replicas
        self._wait = ("WAIT", replicas, max(1, round(seconds * 1000)))

    async def send(self, batch: Sequence[Op[Any]]) -> list[Any]:
        """An answer, or the exception it came to, for each operation.

        Raises:
            NotReplicated: none of the batch counts.
        """
        answers = await self._confirmed([_by_digest(op) for op in batch])
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._confirmed([_by_text(batch[place]) for place in unknown])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        return answers

    async def _confirmed(self, commands: list[Command]) -> list[Any]:
        *answers, copies = await self._on_one_connection([*commands, self._wait])
        if isinstance(copies, Exception):
            raise copies
        if copies < self._replicas:
            raise NotReplicated(f"{copies} of {self._replicas} replicas have confirmed")
        return answers

    async def _on_one_connection(self, commands: list[Command]) -> list[Any]:
        if isinstance(self._redis, aioredis.RedisCluster):
            return await _in_cluster(self._redis, commands)
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


def _by_digest(op: Op[Any]) -> Command:
    return ("EVALSHA", op.script.sha, len(op.keys), *op.keys, *op.args)


def _by_text(op: Op[Any]) -> Command:
    return ("EVAL", op.script.text, len(op.keys), *op.keys, *op.args)


async def _in_cluster(cluster: Any, commands: list[Command]) -> list[Any]:
    """A cluster's own pipeline has no place for a command without a key; every key here is in one slot."""
    await cluster.initialize()
    node = cluster.get_node_from_key(SEQ)
    sent = [PipelineCommand(place, *command) for place, command in enumerate(commands)]
    try:
        await node.execute_pipeline(sent)
        answers = [command.result for command in sent]
        for answer in answers:
            if isinstance(answer, (MovedError, redis.ConnectionError, redis.TimeoutError, OSError)):
                raise redis.ConnectionError(f"the slot's server is another one now: {answer}") from answer
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        await cluster.aclose()  # the next batch asks anew who serves the slot
        raise
    return answers
