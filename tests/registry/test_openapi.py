from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from rest_framework.serializers import DateTimeField

from registry.serializers import Moment

LANE = {
    "/v1/services": {"get"},
    "/v1/services/register": {"post"},
    "/v1/services/watch": {"get"},
    "/v1/services/{name}/{id}": {"delete"},
    "/v1/services/{name}/{id}/heartbeat": {"put"},
}


@pytest.fixture(scope="module")
def schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)


def test_the_lanes_endpoints_stand_in_the_one_valid_document(schema: Any) -> None:
    validate_schema(schema)
    for path, methods in LANE.items():
        assert methods <= schema["paths"][path].keys()


def test_a_registration_is_described_as_the_lane_decodes_it(schema: Any) -> None:
    shape = schema["components"]["schemas"]["Registration"]
    assert set(shape["required"]) == {"name", "endpoints"}
    assert shape["additionalProperties"] is False
    assert shape["properties"]["instance_id"]["nullable"] is True
    assert shape["properties"]["lease_ttl"] == {"type": "integer", "minimum": 5, "maximum": 86400, "default": 30}


@pytest.mark.parametrize(
    ("name", "fields"),
    [("Fact", ("since", "expires_at")), ("Finding", ("since", "until")), ("Held", ("since", "until"))],
)
def test_moments_are_described_as_they_are_answered(schema: Any, name: str, fields: tuple[str, ...]) -> None:
    shapes = schema["components"]["schemas"][name]["properties"]
    assert [shapes[field] for field in fields] == [{"type": "string", "format": "date-time", "nullable": True}] * 2
    assert Moment().to_representation(0.0) is None
    assert DateTimeField().to_internal_value(Moment().to_representation(1.7e9)) == datetime.fromtimestamp(1.7e9, UTC)


def test_every_reference_leads_somewhere(schema: Any) -> None:
    known = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert set(references(schema)) <= known
    secured = {name for each in operations(schema) for option in each.get("security", ()) for name in option}
    assert secured <= schema["components"]["securitySchemes"].keys()


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [found for each in part for found in references(each)]
    if not isinstance(part, dict):
        return []
    here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return here + [found for each in part.values() for found in references(each)]


def operations(schema: Any) -> list[Any]:
    return [operation for path in schema["paths"].values() for operation in path.values()]
