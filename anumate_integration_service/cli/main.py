"""`anumate-integration`: the platform from a terminal.

Heavy libraries (httpx, rich's tables, the platform itself) are imported inside the commands that need them, so that
`--help` and shell completion answer at once.
"""

from __future__ import annotations

import sys

import typer

from anumate_integration_service.cli import circuit, config, health, services
from anumate_integration_service.cli.errors import Failure
from anumate_integration_service.cli.start import start

app = typer.Typer(
    name="anumate-integration",
    help="Service registry, health, circuit breakers and the gateway, from a terminal.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(start)
app.add_typer(services.app, name="services")
app.add_typer(health.app, name="health")
app.add_typer(circuit.app, name="circuit")
config.add_to(app)


def main() -> None:
    try:
        app()
    except Failure as failure:
        sys.stderr.write(f"anumate-integration: {failure}\n")
        sys.exit(failure.status)


if __name__ == "__main__":
    main()
