"""What every command that talks to the platform has in common: its options, its conversation, its errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate
from urllib.parse import quote

import typer

from anumate_integration_service.cli.errors import INTERRUPTED, Failure
from anumate_integration_service.cli.options import DEFAULT_URL, ApiKey, AsJson, Tenant, Url

if TYPE_CHECKING:
    from anumate_integration_service.cli.api import Api

# What reading an answer raises that is not as the API gives it.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
_COMMON = {
    "json": (AsJson, False),
    "url": (Url, DEFAULT_URL),
    "api_key": (ApiKey, ""),
    "tenant": (Tenant, ""),
}


class Talk:
    """A conversation with the platform, and how its answers are shown."""

    def __init__(self, api: Api, as_json: bool) -> None:
        self.api = api
        self.as_json = as_json

    def show(self, answer: Any, render: Callable[[Any], None]) -> None:
        """The API's own body with `--json`, else what `render` makes of it."""
        from anumate_integration_service.cli import show

        if self.as_json:
            show.as_json(answer)
        else:
            render(answer)


def connected(
    function: Callable[Concatenate[Talk, ...], None] | None = None, *, trouble: int | None = None
) -> Callable[..., Any]:
    """Make a command of a function that takes a `Talk` and then its own options; `--json` and the connection are added.

    `trouble` is the exit status of every failure, for a command whose statuses are not the usual ones.
    """
    if function is None:
        return functools.partial(connected, trouble=trouble)
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

    @functools.wraps(function)
    def command(*, ctx: typer.Context, **given: Any) -> None:
        common = {name: given.pop(name) for name in _COMMON} | _said_before(ctx)
        with _failures(common["url"], trouble):
            from anumate_integration_service.cli.api import Api

            with Api(common["url"], common["api_key"], common["tenant"]) as api:
                function(Talk(api, common["json"]), **given)

    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _COMMON.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own), *common]
    command.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def before_the_command(
    ctx: typer.Context, json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = "", tenant: Tenant = ""
) -> None:
    """The common options may stand before the command's name as well as behind it."""
    given = {"json": json, "url": url, "api_key": api_key, "tenant": tenant}
    ctx.obj = {name: value for name, value in given.items() if _typed(ctx, name)}
    if ctx.obj and ctx.invoked_subcommand == "start":
        raise typer.BadParameter("start makes a platform, it does not talk to one", param_hint=next(iter(ctx.obj)))


def _said_before(ctx: typer.Context) -> dict[str, Any]:
    """What stood before the command's name and does not stand behind it too."""
    return {name: value for name, value in (ctx.find_root().obj or {}).items() if not _typed(ctx, name)}


def _typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@contextmanager
def _failures(url: str, trouble: int | None) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        failure.status = failure.status if trouble is None else trouble
        raise
    except typer.Abort:
        raise typer.Exit(INTERRUPTED) from None
    except _MALFORMED as error:
        about = f"{type(error).__name__}: {error}"
        sentence = f"{url} gave an answer that this command does not know ({about}); are the versions the same?"
        raise Failure(sentence, *(() if trouble is None else (trouble,))) from error


def path(*parts: str) -> str:
    """The address of a thing of the API: `path("services", name)`.

    Raises:
        typer.BadParameter: a part is empty, so that the address would be another thing's.
    """
    if not all(parts):
        raise typer.BadParameter("A name cannot be empty.")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def one_of(argument: str, option: str, word: str, flag: str) -> str:
    """A name that may be given as an argument or by its option, but is needed.

    Raises:
        typer.BadParameter: neither is there, or the two differ.
    """
    if argument and option and argument != option:
        raise typer.BadParameter(f"{word} and {flag} name two things", param_hint=flag)
    if chosen := argument or option:
        return chosen
    raise typer.BadParameter(f"say which: {word} or {flag}", param_hint=flag)
