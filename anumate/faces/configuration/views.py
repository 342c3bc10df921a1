"""The configuration of the caller's tenant over HTTP: read it whole, or make it what a document says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from anumate.faces.configuration.exporting import export
from anumate.faces.configuration.importing import Rejected, apply
from anumate.faces.configuration.reading import MAX_BYTES, Document, Unreadable, read
from anumate.faces.configuration.sections import SECTIONS, Asker
from anumate.faces.configuration.writing import write
from anumate.lib.problem import Problem
from registry.auth import caller_of
from registry.models import Revision
from registry.parsers import JsonParser

YAML = "application/yaml"
"""RFC 9512."""


class YamlText(BaseRenderer):
    media_type = YAML
    format = "yaml"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return write(data).encode()


class YamlParser(BaseParser):
    """A document with its lines."""

    media_type = YAML

    def parse(  # type: ignore[override]  # the one view that takes it knows what it gets
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Document:
        data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Problem("payload_too_large", f"The body is larger than {MAX_BYTES // 1024 // 1024} MB.")
        try:
            return read(data)
        except Unreadable as error:
            raise Problem("malformed_request", f"{str(error)[0].upper()}{str(error)[1:]}", line=error.line) from None


class ConfigSerializer(serializers.Serializer[Any]):
    """The document; its entries have the fields of the resources, those with their defaults left out."""

    version = serializers.IntegerField(help_text="Of the document's form: 1.")

    def get_fields(self) -> dict[str, Any]:
        entry = serializers.DictField
        lists = {section.name: serializers.ListField(child=entry(), required=False) for section in SECTIONS}
        return {**super().get_fields(), **lists}


class FieldChangeSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    change = serializers.ChoiceField(choices=["added", "changed", "removed"])
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class EntryChangeSerializer(serializers.Serializer[Any]):
    section = serializers.ChoiceField(choices=[section.name for section in SECTIONS])
    name = serializers.CharField()
    change = serializers.ChoiceField(choices=["added", "changed", "removed"])

    def get_fields(self) -> dict[str, Any]:
        # Not declared above, because `fields` is an attribute of every serializer.
        return {**super().get_fields(), "fields": FieldChangeSerializer(many=True)}


class ImportedSerializer(serializers.Serializer[Any]):
    dry_run = serializers.BooleanField(help_text="Nothing was written.")
    revision = serializers.IntegerField(help_text="Of the configuration, as it is now.")
    changes = EntryChangeSerializer(many=True, help_text="One for each entry that changes.")


_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Configuration(APIView):
    """Services, checks, routes, upstreams and policies of the tenant as one document, without secrets."""

    scopes: ClassVar = {"read": "admin", "write": "admin"}
    parser_classes = [JsonParser, YamlParser]

    def get_renderers(self) -> list[BaseRenderer]:
        """What was read can be had as YAML; what an import answers is JSON."""
        return [JSONRenderer(), YamlText()] if self.request.method in {"GET", "HEAD"} else [JSONRenderer()]

    @extend_schema(
        operation_id="config_export",
        responses={(200, "application/json"): ConfigSerializer, (200, YAML): ConfigSerializer},
    )
    def get(self, request: Request) -> Response:
        return Response(export(Asker(caller_of(request))))

    @extend_schema(
        operation_id="config_import",
        parameters=[
            OpenApiParameter("dry_run", bool, description="Only answer what would change."),
            OpenApiParameter(
                "prune", bool, description="Remove what is absent from the sections that the document has."
            ),
        ],
        request={"application/json": ConfigSerializer, YAML: ConfigSerializer},
        responses=ImportedSerializer,
    )
    def post(self, request: Request) -> Response:
        wanted = _options(request)
        body: Any = request.data
        document = body if isinstance(body, Document) else Document(body)
        try:
            changes = apply(Asker(caller_of(request)), document, **wanted)
        except Rejected as rejected:
            fault: dict[str, Any] = {"pointer": rejected.pointer, "detail": rejected.sentence}
            if rejected.line is not None:
                fault["line"] = rejected.line
            raise Problem(rejected.code, str(rejected), errors=[fault]) from None
        revision = Revision.objects.values_list("number", flat=True).filter(pk=1).first() or 0
        return Response(
            {"dry_run": wanted["dry_run"], "revision": revision, "changes": [each.as_json() for each in changes]}
        )


def _options(request: Request) -> dict[str, bool]:
    """A word that is not known is refused: a misspelt dry_run must not write."""
    options = {"dry_run": False, "prune": False}
    for name, value in request.query_params.items():
        if name == "tenant":  # people choose theirs like this
            continue
        if name not in options or (truth := _TRUTH.get(str(value).lower())) is None:
            raise Problem("validation_failed", f"{name}={value} is not known; take dry_run and prune, true or false.")
        options[name] = truth
    return options
