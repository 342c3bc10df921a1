"""`anumate-integration`: the platform from a terminal.

Heavy libraries (httpx, rich's tables, the platform itself) are imported inside the commands that need them, so that
`--help` and shell completion answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer

from anumate_integration_service.cli import circuit, config, doctor, health, keys, metrics, routes, services, tenants
from anumate_integration_service.cli.command import before_the_command
from anumate_integration_service.cli.errors import EXIT_STATUSES, INTERRUPTED, USAGE, Failure
from anumate_integration_service.cli.start import start

NAME = "anumate-integration"

app = typer.Typer(
    name=NAME,
    help="Service registry, health, circuit breakers and the gateway, from a terminal.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback()(before_the_command)
app.command()(start)
app.add_typer(services.app, name="services")
app.add_typer(health.app, name="health")
app.add_typer(circuit.app, name="circuit")
app.add_typer(routes.app, name="routes")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
config.add_to(app)
doctor.add_to(app)
metrics.add_to(app)


def main() -> None:
    """Run a command and end the process with its exit status; no failure is ever more than a line."""
    _write_anything()
    try:
        sys.exit(app(prog_name=NAME, standalone_mode=False))
    except Failure as failure:
        _complain(str(failure))
        sys.exit(failure.status)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # which every wrong usage has, as typer raises it
            raise
        _explain(error)
        sys.exit(USAGE)
    finally:
        _flush()


def _explain(wrong: Any) -> None:
    """Wrong usage in one line that says where the right one stands."""
    sentence = wrong.format_message().strip()
    if not sentence or type(wrong).__name__ == "NoArgsIsHelpError":
        wrong.show()  # the help, as nothing was asked for
        return
    command = wrong.ctx.command_path if wrong.ctx else NAME
    _complain(f"{sentence.rstrip('.')}; see {command} --help.")


def _complain(sentence: str) -> None:
    line = " ".join(sentence.split())
    sys.stderr.write(f"{NAME}: {''.join(each if each.isprintable() else '?' for each in line)}\n")


def _write_anything() -> None:
    """A terminal that cannot show a character gets its number, not an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write the rest here: what fails later, as the interpreter ends, is said in a traceback's words."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
