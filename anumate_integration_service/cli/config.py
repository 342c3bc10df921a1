"""`export`, `diff` and `apply`: a tenant's configuration as a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from anumate_integration_service.cli.command import Talk, connected
from anumate_integration_service.cli.errors import Failure

File = Annotated[str, typer.Argument(help="What `export` wrote; - is the standard input.")]
Prune = Annotated[bool, typer.Option("--prune", help="Also remove what is absent from the sections that the file has.")]

DIFFERS = 1
TROUBLE = 2


def add_to(app: typer.Typer) -> None:
    """Put the three commands into the command line."""
    app.command()(export)
    app.command()(diff)
    app.command()(apply)


@connected
def export(talk: Talk) -> None:
    """Write the configuration as YAML, without secrets."""
    from anumate_integration_service.cli import show

    if talk.as_json:
        show.as_json(talk.api.get("/v1/config"))
    else:
        sys.stdout.write(talk.api.get_text("/v1/config", "application/yaml"))


@connected(trouble=TROUBLE)
def diff(
    talk: Talk,
    file: File,
    prune: Prune = False,
) -> None:
    """Say what `apply` would change. Exit status 0: nothing, 1: something, 2: trouble, as of diff(1)."""
    answer = _send(talk.api, _content(file), file, dry_run=True, prune=prune)
    talk.show(answer, _show)
    if answer["changes"]:
        raise typer.Exit(DIFFERS)


@connected
def apply(
    talk: Talk,
    file: File,
    prune: Prune = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make the configuration what a file says: all of it, or nothing."""
    content = _content(file)
    if not yes:
        _ask(_send(talk.api, content, file, dry_run=True, prune=prune), from_terminal=file != "-")
    talk.show(_send(talk.api, content, file, dry_run=False, prune=prune), _made)


def _ask(planned: Any, *, from_terminal: bool) -> None:
    """Let the person decide. The question goes to the standard error, so that the answer can be piped."""
    from anumate_integration_service.cli import changes

    if not planned["changes"]:
        return
    if not (from_terminal and sys.stdin.isatty()):
        raise Failure(f"This would {changes.intent(planned['changes'])}; say --yes, as nobody can be asked here.")
    sys.stderr.writelines(f"{line}\n" for line in changes.lines(planned["changes"]))
    if not typer.confirm(f"{changes.intent(planned['changes']).capitalize()}?", err=True):
        raise Failure("Nothing is changed.")


def _made(answer: Any) -> None:
    from anumate_integration_service.cli import changes

    sys.stdout.write(f"{changes.outcome(answer['changes'])}; the revision is {answer['revision']}.\n")


def _show(answer: Any) -> None:
    from anumate_integration_service.cli import changes

    sys.stdout.writelines(f"{line}\n" for line in changes.lines(answer["changes"]))
    sys.stdout.write(f"Would {changes.intent(answer['changes'])}.\n")


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}.") from None


def _send(api: Any, content: bytes, file: str, *, dry_run: bool, prune: bool) -> Any:
    """What the platform answers to the file; what it says of a line is said of this file."""
    query = f"dry_run={str(dry_run).lower()}&prune={str(prune).lower()}"
    return api.post_text(f"/v1/config?{query}", content, "application/yaml", about=file)
