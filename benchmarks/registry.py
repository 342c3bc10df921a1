"""One web worker on one core: registrations, heartbeats and discoveries over HTTP. `python -m benchmarks.registry`."""

from __future__ import annotations

import json
import subprocess

import msgspec

from benchmarks import load
from benchmarks.ours import PEPPER
from benchmarks.processes import memory
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port, rows
from registry.live import keys
from registry.live.sections import publish

INSTANCES = 10_000
PER_SERVICE = 10
SECONDS = 4


def main() -> None:
    with Stand() as stand:
        key = configure(stand)
        web, port = web_worker(stand)
        base, headers = f"http://127.0.0.1:{port}", {"X-API-Key": key}

        def send(requests: list[load.Request]) -> load.Result:
            return load.send(base, requests, core=OTHER, seconds=SECONDS, headers=headers)

        names = [(f"service-{number // PER_SERVICE}", f"i{number}") for number in range(INSTANCES)]
        register = send([load.Request("POST", "/v1/services/register", body_of(*name)) for name in names])
        known = names[: PER_SERVICE * 100]
        beat = send([load.Request("PUT", f"/v1/services/{service}/{id}/heartbeat") for service, id in known])
        discover = send(
            [load.Request("GET", f"/v1/services?service_name={service}") for service, _ in names[:1000:PER_SERVICE]]
        )
        rss, pss = memory(web.pid)
    lines = [
        ("register", *register.cells),
        ("heartbeat", *beat.cells),
        (f"discover {PER_SERVICE} instances", *discover.cells),
    ]
    header = ("", "requests/s", "p50 ms", "p99 ms", "failed")
    rows(f"Registry: one web worker on one core, up to {INSTANCES} instances, 32 connections", header, lines)
    rows("Memory after the run", ("", "RSS MB", "PSS MB"), [("web worker", f"{rss:.0f}", f"{pss:.0f}")])


def web_worker(stand: Stand) -> tuple[subprocess.Popen[bytes], int]:
    """One web worker on the measured core, and its port."""
    port = free_port()
    environ = {"API_KEY_PEPPER": PEPPER, "SECRET_KEY": "a signing key for benchmarks, long enough to be accepted"}
    command = (PYTHON, "-m", "uvicorn", "anumate.asgi:application", "--port", str(port), "--no-access-log")
    return stand.start(*command, "--log-level", "warning", core=MEASURED, port=port, **environ), port


def configure(stand: Stand) -> str:
    """Tables, a tenant and a key; answers the key."""
    migrate = [PYTHON, "manage.py", "migrate", "--verbosity", "0"]
    environ = stand.environ(
        SECRET_KEY="a signing key for benchmarks, long enough to be accepted", API_KEY_PEPPER=PEPPER
    )
    subprocess.run(migrate, check=True, env=environ)
    public_id, key = keys.make()
    scopes = ("registry:read", "registry:write")
    record = keys.KeyRecord(public_id, "bench", "default", keys.secret_hash(PEPPER, key), scopes)
    bodies = {
        "keys": msgspec.json.encode(keys.KeySection((record,))),
        "tenants": msgspec.json.encode(keys.TenantSection((keys.TenantRecord("default"),))),
    }
    for name, body in bodies.items():
        publish(stand.redis, name, origin="bench", revision=1, body=body)
    return key


def body_of(service: str, instance: str) -> str:
    endpoints = {"http": {"protocol": "http", "host": "127.0.0.1", "port": 8000}}
    body = {"name": service, "instance_id": instance, "version": "1.0.0", "endpoints": endpoints}
    return json.dumps({**body, "capabilities": ["http_api"], "tags": ["api", "production"], "lease_ttl": 600})


if __name__ == "__main__":
    main()
