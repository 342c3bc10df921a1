"""Documents (`gateway.proxy.policies`) as admin, API and models handle them: read strictly, kept without defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from django.core.exceptions import ValidationError

from gateway.control.document_rules import check_document
from gateway.control.rules import MOST
from gateway.proxy.policies import Address

Doc = TypeVar("Doc", bound=msgspec.Struct)
Json = dict[str, Any]

_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_WHERE: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


class Misread(ValidationError):
    """A document is not what it should be. `path` names the field of it, empty for the whole."""

    def __init__(self, path: str, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}" if path else sentence)
        self.path = path
        self.sentence = sentence


def read(kind: type[Doc], value: Any) -> Doc:
    """The document that JSON means.

    Raises:
        Misread: an unknown field, a wrong type, a value out of bounds, or fields that do not go together.
    """
    if _holds_no_text(value):
        raise Misread("", "It holds a NUL or half a character.")
    for path in _unknown(kind, value, ""):
        raise Misread(path, "There is no such field.")
    try:
        document = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _misread(str(error)) from None
    try:
        check_document(document)
    except ValidationError as error:
        raise Misread("", " ".join(error.messages)) from None
    return document


def read_all(kind: type[Doc], values: Any) -> tuple[Doc, ...]:
    """A list of documents. Raises Misread, with a path that begins with the number of the one at fault."""
    if not isinstance(values, list):
        raise Misread("", "This is a list.")
    found = []
    for number, value in enumerate(values):
        try:
            found.append(read(kind, value))
        except Misread as error:
            raise Misread(f"{number}.{error.path}".rstrip("."), error.sentence) from None
    return tuple(found)


def read_addresses(values: Any) -> tuple[Address, ...]:
    """Where a service is reached that nothing registers for. Raises Misread."""
    found = read_all(Address, values)
    if len(found) > MOST:
        raise Misread("", f"At most {MOST} addresses are allowed.")
    if len({(each.host.lower(), each.port) for each in found}) < len(found):
        raise Misread("", "Two addresses are the same.")
    return found


def short(document: msgspec.Struct) -> Json:
    """The document as it is kept: JSON values, without what goes without saying."""
    told = [field for field in msgspec.structs.fields(document) if getattr(document, field.name) != field.default]
    # Not by `omit_defaults`, which looks for the same object: equal values would stay.
    return {field.name: plain(getattr(document, field.name)) for field in told}


def plain(value: Any) -> Any:
    """A document's value as JSON has it: lists and dicts."""
    return msgspec.json.decode(msgspec.json.encode(value))


@cache
def schema(kind: type[msgspec.Struct]) -> Json:
    """The document's JSON schema, with those of its parts inside."""
    (whole,), parts = msgspec.json.schema_components([kind], ref_template="{name}")
    resolved: Json = _inlined(whole, parts)
    return resolved


def _inlined(node: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(each, parts) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(parts[node["$ref"]], parts) | {name: value for name, value in node.items() if name != "$ref"}
    node = {name: _inlined(value, parts) for name, value in node.items() if name != "title"}
    if not node.get("required", True):
        del node["required"]
    if isinstance(least := node.get("exclusiveMinimum"), (int, float)):
        node |= {"minimum": least, "exclusiveMinimum": True}  # as OpenAPI 3.0 has it
    return node


def _unknown(kind: Any, value: Any, path: str) -> Iterator[str]:
    """Paths of fields that the document does not have; msgspec passes over them, since newer tables may have more."""
    if not isinstance(value, Mapping) or not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name, part in value.items():
        if name not in known:
            yield f"{path}{name}"
            continue
        inner = _struct_in(known[name])
        many: Iterable[tuple[str, Any]] = [(f"{path}{name}.", part)]
        if isinstance(part, list):
            many = [(f"{path}{name}.{number}.", each) for number, each in enumerate(part)]
        for where, each in many:
            yield from _unknown(inner, each, where)


def _holds_no_text(value: Any) -> bool:
    """Whether a text in it is none that a database or UTF-8 takes."""
    if isinstance(value, str):
        return _NO_TEXT.search(value) is not None
    if isinstance(value, Mapping):
        return any(_holds_no_text(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_holds_no_text, value))


def _struct_in(annotation: Any) -> Any:
    """The struct that a field or the items of its list are made of, if any."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _struct_in(part)) is not None:
            return found
    return None


def _misread(message: str) -> Misread:
    """msgspec's words, with the place taken out of them."""
    match = _WHERE.search(message)
    path = match["path"].replace("[", ".").replace("]", "").strip(".") if match else ""
    sentence = (message[: match.start()] if match else message).replace("`", "")
    return Misread(path, sentence.rstrip(".") + ".")
