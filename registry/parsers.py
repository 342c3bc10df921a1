"""How bodies are read and answers chosen: JSON, unless a view has more to offer and the client asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

from rest_framework.exceptions import NotAcceptable, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JsonParser(JSONParser):
    """JSON as RFC 8259 has it: no NaN, and no name twice in one object, where readers differ on which one counts."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return json.loads(stream.read().decode(), parse_constant=_no_constant, object_pairs_hook=_named_once)
        except ValueError as error:
            raise ParseError(f"This is no JSON: {error}.") from None
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)[:100]!r} is given twice in one object")
    return found


class JsonUnlessAsked(DefaultContentNegotiation):
    """Answers in the first format a view offers rather than refusing: a browser that wants HTML gets JSON."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        offered = list(renderers)
        try:
            renderer, media_type = super().select_renderer(request, offered, format_suffix)
            return renderer, media_type
        except NotAcceptable:
            return offered[0], offered[0].media_type
