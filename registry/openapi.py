"""The lane's endpoints in the same OpenAPI document as the views', from the types that the lane itself decodes."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from registry.live.discovery import STATUSES, Listing
from registry.live.registration import NO_LINE_FEED, Heartbeat, Registered, Registration, Renewed

_REF: Final = "#/components/schemas/{name}"
_SHAPES: Final = (Registration, Registered, Heartbeat, Renewed, Listing)
_SECURITY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"bearer": []}]
# JSON Schema that OpenAPI 3.0 has no word for.
_UNKNOWN_TO_OPENAPI: Final = frozenset({"propertyNames", "prefixItems"})


def add_lane(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Post-processing hook of drf-spectacular."""
    _, components = msgspec.json.schema_components(_SHAPES, ref_template=_REF)
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in components.items():
        schemas.setdefault(name, _as_openapi(schema))
    for path, operations in _paths().items():
        result["paths"].setdefault(path, {}).update(operations)
    result["paths"] = dict(sorted(result["paths"].items()))
    return result


def _paths() -> dict[str, dict[str, Any]]:
    instance = [_parameter("path", "name", "The service."), _parameter("path", "id", "The instance.")]
    filters = _filters()
    return {
        "/v1/services/register": {
            "post": _operation(
                "services_register",
                "Register an instance, or renew its lease. Registering the same again changes nothing else.",
                {"201": _json("Registered.", "Registered"), "200": _json("Known already, renewed.", "Registered")},
                body="Registration",
            )
        },
        "/v1/services/{name}/{id}/heartbeat": {
            "put": _operation(
                "services_heartbeat",
                "Renew the lease, and say how the instance is. 404: register again.",
                {"200": _json("Renewed.", "Renewed")},
                parameters=instance,
                body="Heartbeat",
                body_needed=False,
            )
        },
        "/v1/services/{name}/{id}": {
            "delete": _operation(
                "services_deregister",
                "End the lease.",
                {"204": {"description": "Gone."}},
                parameters=instance,
            )
        },
        "/v1/services": {
            "get": _operation(
                "services_discover",
                "Find instances. Without status: those that may get traffic. With index and wait: answers once "
                "something relevant changed after the index, or when the time is up.",
                {"200": _json("Who is there.", "Listing")},
                parameters=[
                    *filters,
                    _parameter("query", "wait", "How long to wait for a change, like 30s: up to 10m, empty means 5m."),
                ],
            )
        },
        "/v1/services/watch": {
            "get": _operation(
                "services_watch",
                "Server-sent events: a snapshot, then each service that changes. The id of an event is its index; "
                "send it as Last-Event-ID to go on from there.",
                {"200": {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
                parameters=filters,
            )
        },
    }


def _filters() -> list[dict[str, Any]]:
    return [
        _parameter("query", "service_name", "Only this service."),
        _parameter("query", "capability", "Only with all of these capabilities.", many=True),
        _parameter("query", "tag", "Only with all of these tags.", many=True),
        _parameter("query", "version", "A version, or constraints like >=1.2,<2 (PEP 440)."),
        _parameter(
            "query",
            "zone",
            "Of each service the instances in this zone; where none fits, all others. With status: only this zone.",
        ),
        _parameter(
            "query", "zone_strict", "With true only the zone counts, whatever is there.", choices=("true", "false")
        ),
        _parameter("query", "status", "Only of this health, whatever the operator's state.", choices=STATUSES),
        _parameter("query", "index", "An index that an earlier answer gave."),
    ]


def _operation(
    name: str,
    description: str,
    responses: dict[str, Any],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: str = "",
    body_needed: bool = True,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": name, "description": description, "tags": ["services"]}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"content": _content(body), "required": body_needed}
    return {**operation, "security": _SECURITY, "responses": responses}


def _parameter(
    place: str, name: str, description: str, *, many: bool = False, choices: tuple[str, ...] = ()
) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if choices:
        schema["enum"] = list(choices)
    if many:
        schema = {"type": "array", "items": schema}
    return {"in": place, "name": name, "description": description, "schema": schema, "required": place == "path"}


def _json(description: str, shape: str) -> dict[str, Any]:
    return {"description": description, "content": _content(shape)}


def _content(shape: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=shape)}}}


def _as_openapi(schema: Any) -> Any:
    """JSON Schema 2020-12, which msgspec writes, as OpenAPI 3.0 wants it."""
    if isinstance(schema, list):
        return [_as_openapi(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    options = schema.get("anyOf", [])
    if {"type": "null"} in options:
        (kind,) = (option for option in options if option != {"type": "null"})
        rest = {name: part for name, part in schema.items() if name not in {"anyOf", "default"}}
        return {**({"allOf": [kind]} if "$ref" in kind else _as_openapi(kind)), **rest, "nullable": True}
    kept = {name: _as_openapi(part) for name, part in schema.items() if name not in _UNKNOWN_TO_OPENAPI}
    if kept.get("required") == []:
        del kept["required"]
    if isinstance(description := kept.get("description"), str):
        kept["description"] = " ".join(description.split())
    if isinstance(pattern := kept.get("pattern"), str):
        kept["pattern"] = pattern.removesuffix(NO_LINE_FEED)  # only Python's $ needs it
    return kept
