"""`health status`."""

from __future__ import annotations

import typer

from anumate_integration_service.cli.options import DEFAULT_URL, ApiKey, AsJson, Tenant, Url

app = typer.Typer(help="What is up, and why not.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keeps `status` a command of its own."""


@app.command()
def status(
    json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    tenant: Tenant = "",
) -> None:
    """Every service's health, with the sentence that says why."""
    from anumate_integration_service.cli import show
    from anumate_integration_service.cli.api import Api

    with Api(url, api_key, tenant) as api:
        answer = api.get("/v1/health/status")
    if json:
        show.as_json(answer)
        return
    counts = ", ".join(f"{count} {name}" for name, count in answer["counts"].items() if count)
    show.line(f"{show.word(answer['status'])}   {show.text(counts)}\n")
    show.table(
        ("SERVICE", "INSTANCE", "STATUS", "STATE", "WHY"),
        (
            (
                show.text(service["name"]),
                show.text(instance["instance_id"]),
                show.word(instance["status"]),
                show.word(instance["state"]),
                show.text(instance["sentence"]),
            )
            for service in answer["services"]
            for instance in service["instances"]
        ),
    )
