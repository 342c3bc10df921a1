"""`circuit list|reset`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from anumate_integration_service.cli.options import DEFAULT_URL, ApiKey, AsJson, Tenant, Url

app = typer.Typer(help="Circuit breakers.", no_args_is_help=True)


@app.command("list")
def list_breakers(
    json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    tenant: Tenant = "",
) -> None:
    """List the breakers, merged over all gateway workers."""
    from anumate_integration_service.cli import show
    from anumate_integration_service.cli.api import Api

    with Api(url, api_key, tenant) as api:
        answer = api.get_all("/v1/circuit-breakers")
    if json:
        show.as_json(answer)
        return
    if not answer["results"]:
        show.line("No breakers yet: one appears with a service's first request through the gateway.")
        return
    show.table(
        ("BREAKER", "STATE", "CALLS", "FAILURES"),
        (
            (
                show.text(each["name"]),
                show.word(each["state"]),
                show.text(each["calls"]),
                show.text(each["failures"]),
            )
            for each in answer["results"]
        ),
    )


@app.command()
def reset(
    name: Annotated[str, typer.Option("--name", help="Its name, like my-service-circuit.")],
    json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    tenant: Tenant = "",
) -> None:
    """Close a breaker and forget what it counted."""
    from anumate_integration_service.cli import show
    from anumate_integration_service.cli.api import Api

    with Api(url, api_key, tenant) as api:
        answer = api.post(f"/v1/circuit-breakers/{quote(name, safe='')}/reset")
    if json:
        show.as_json(answer)
    else:
        show.line(f"{show.text(name)} is reset.")
