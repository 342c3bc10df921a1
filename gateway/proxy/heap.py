"""Python's collector of cycles looks at all that lives while everything else waits: 60 ms with 10,000 routes.

A routing table makes no cycles and lives until the next one comes, so the collector need not look at it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """What is made in here is left alone by the collector, until nobody uses it any more.

    It is asked for what there is first, so that next to nothing is kept that is not used.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
