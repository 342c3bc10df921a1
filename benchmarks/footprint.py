"""What the catalogue weighs, in a process of its own: `python -m benchmarks.footprint [instances] [services]`.

Instances as the change stream brings them, each with the words of a health check; nothing they share is shared by us.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import msgspec

from registry.live.catalog import Catalog
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.ops import decode_change


def main(instances: int, services: int) -> None:
    """Print the bytes of memory that the process needed more for each instance."""
    _fill(Catalog(), 10, 10)  # what a process needs once is no instance's own
    gc.collect()
    before = _resident()
    catalog = Catalog()
    _fill(catalog, instances, services)
    for name in catalog.services("default"):
        catalog.instances("default", name)
    gc.collect()
    print((_resident() - before) / instances)


def _fill(catalog: Catalog, instances: int, services: int) -> None:
    for number in range(instances):
        key = Key("default", f"service-{number % services}", f"service-{number % services}-{number:08x}")
        document = Document(
            version="1.4.2",
            endpoints={"http": Endpoint("http", f"10.0.{number >> 8 & 255}.{number & 255}", 8000)},
            capabilities=("http_api", "authentication"),
            tags=("api", "production"),
            zone=f"zone-{number % 3}",
            metadata={"team": "payments", "commit": f"{number % services:012x}"},
        )
        fact = Fact("healthy", "It answered 200 within 3 ms.", 1.7e9 + number, "http")
        put = {
            b"op": b"put",
            b"key": str(key).encode(),
            b"doc": msgspec.json.encode(document),
            b"at": b"1700000000.123",
        }
        said = {b"op": b"fact", b"key": str(key).encode(), b"kind": b"probe", b"fact": msgspec.json.encode(fact)}
        for seq, fields in ((2 * number + 1, put), (2 * number + 2, said)):
            catalog.apply(decode_change((b"%d-0" % seq, fields)))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(*(given + [10_000, 1_000][len(given) :]))
