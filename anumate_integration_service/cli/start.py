"""`start`: the whole platform on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def start(
    host: Annotated[str, typer.Option("--host", help="The address both ports listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The control plane's port.")] = 8090,
    gateway_port: Annotated[
        int | None, typer.Option("--gateway-port", help="The gateway's port.  [default: 8080]")
    ] = None,
    redis: Annotated[
        str | None, typer.Option("--redis", help="Redis or Valkey. Else REDIS_URL; else an embedded Valkey.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Else DATABASE_URL; else SQLite in the state directory.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes of the control plane.")] = 1,
    gateway_workers: Annotated[int, typer.Option("--gateway-workers", help="Processes of the gateway.")] = 2,
    demo: Annotated[bool, typer.Option("--demo", help="Also start two demo services with a route each.")] = False,
) -> None:
    """Start the platform: control plane, gateway, worker, and a store if none is given."""
    from anumate.stack.options import Options
    from anumate.stack.start import run

    raise typer.Exit(
        run(
            Options(
                host=host,
                port=port,
                gateway_port=gateway_port,
                redis=redis,
                database_url=database_url,
                workers=workers,
                gateway_workers=gateway_workers,
                demo=demo,
            )
        )
    )
