"""Brings a catalogue up to the store for a process that looks now and then; one round trip when nothing has happened.

Serving processes stay on the change stream (`registry.live.follower`); a worker's loop lives only as long as one turn.
"""

from __future__ import annotations

from typing import Any, Final

import redis.asyncio as aioredis

from registry.live import ops
from registry.live.catalog import Catalog
from registry.live.store import AsyncStore

BATCH: Final = 5_000


async def catch_up(client: aioredis.Redis, catalog: Catalog) -> None:
    """Take in what has happened; the whole store when the stream no longer joins on to what is known."""
    known = catalog.position
    pipeline: Any = client.pipeline(transaction=False)
    # By its name: redis-py blocks the method in a cluster's pipelines, though both keys have the same slot.
    pipeline.execute_command("MGET", ops.EPOCH, ops.SEQ)
    pipeline.xrange(ops.CHANGES, min=f"({known.seq}-0", count=BATCH)
    (epoch, seq), entries = await pipeline.execute()
    changes = [ops.decode_change(entry) for entry in entries]
    joins_on = changes[0].seq == known.seq + 1 if changes else int(seq or 0) == known.seq
    if epoch is not None and epoch.decode() == known.epoch and joins_on:
        if changes:
            catalog.apply(*changes)
    else:
        catalog.replace(await AsyncStore(client).snapshot())
    catalog.expire_held()
