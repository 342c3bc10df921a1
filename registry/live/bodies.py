"""JSON bodies as typed values, or a problem that points at every value at fault.

The fast path is msgspec's decoder. Only a body it refuses is looked at field by field, to say all its faults at once.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from anumate.lib.problem import Problem

T = TypeVar("T", bound=msgspec.Struct)
Fault = dict[str, str]


class Body(Generic[T]):
    """Decodes one type of body."""

    def __init__(self, shape: type[T]) -> None:
        self._shape = shape
        self._decoder = msgspec.json.Decoder(shape)

    def decode(self, data: bytes) -> T:
        """Raises Problem: `malformed_request` for what is no JSON, `validation_failed` for what has another shape.

        A name given twice makes it malformed too: which of the two counts, our caller and we might see differently.
        """
        try:
            try:
                decoded = self._decoder.decode(data)
                _unambiguous.decode(data.decode())
                return decoded
            except msgspec.ValidationError as error:
                raise invalid(list(faults(msgspec.json.decode(data), self._shape)) or [_fault("", error)]) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem("malformed_request", f"The body is not JSON: {error}.") from None
        except _Twice as error:
            raise Problem("malformed_request", f"The body is ambiguous: {error}.") from None


class _Twice(Exception):
    """A name stands twice in one object."""


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len(names := {name for name, _ in pairs}):
        twice = next(name for name in names if sum(name == each for each, _ in pairs) > 1)
        raise _Twice(f"{twice!r} stands twice in one object")


_unambiguous = json.JSONDecoder(object_pairs_hook=_each_once)


def invalid(errors: list[Fault]) -> Problem:
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    detail = f"{first['pointer'] or 'The body'}: {first['detail']}"
    return Problem("validation_failed", detail.removesuffix(".") + more + ".", errors=errors)


def faults(value: Any, kind: Any, pointer: str = "") -> Iterator[Fault]:
    """Everything in `value` that keeps it from being a `kind`, with where it stands."""
    bare = _bare(kind)
    if isinstance(value, dict) and isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        yield from _struct_faults(value, bare, pointer)
    elif isinstance(value, dict) and get_origin(bare) is dict:
        yield from _dict_faults(value, bare, kind, pointer)
    elif isinstance(value, list) and get_origin(bare) is tuple:
        yield from _tuple_faults(value, bare, kind, pointer)
    else:
        yield from _own_fault(value, kind, pointer)


def _struct_faults(value: Mapping[str, Any], shape: type[msgspec.Struct], pointer: str) -> Iterator[Fault]:
    hints = get_type_hints(shape, include_extras=True)
    for field in msgspec.structs.fields(shape):
        where = f"{pointer}/{field.encode_name}"
        if field.encode_name in value:
            yield from faults(value[field.encode_name], hints[field.name], where)
        elif field.required:
            yield {"pointer": where, "detail": "This field is needed."}
    for name in value:
        if name not in hints:
            yield {"pointer": f"{pointer}/{_escape(name)}", "detail": "This field is not known."}


def _dict_faults(value: Mapping[str, Any], bare: Any, kind: Any, pointer: str) -> Iterator[Fault]:
    key_kind, value_kind = get_args(bare)
    found = False
    for name, item in value.items():
        for kind_, part in ((key_kind, name), (value_kind, item)):
            for fault in faults(part, kind_, f"{pointer}/{_escape(name)}"):
                found = True
                yield fault
    if not found:
        yield from _own_fault(value, kind, pointer)


def _tuple_faults(value: list[Any], bare: Any, kind: Any, pointer: str) -> Iterator[Fault]:
    found = False
    for position, item in enumerate(value):
        for fault in faults(item, get_args(bare)[0], f"{pointer}/{position}"):
            found = True
            yield fault
    if not found:
        yield from _own_fault(value, kind, pointer)


def _own_fault(value: Any, kind: Any, pointer: str) -> Iterator[Fault]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield _fault(pointer, error, _description(kind) if isinstance(value, str) else "")


def _fault(pointer: str, error: msgspec.ValidationError, description: str = "") -> Fault:
    text = str(error).partition(" - at `")[0].replace("`", "")
    return {"pointer": pointer, "detail": description or f"{text}."}


def _description(kind: Any) -> str:
    """What the type says of itself to people; texts have one where a regular expression would be all they get."""
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return next((note.description for note in notes if isinstance(note, msgspec.Meta) and note.description), "")


def _bare(kind: Any) -> Any:
    """Without what Annotated adds, and without `| None`."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in {Union, types.UnionType}:
        return next(_bare(part) for part in get_args(kind) if part is not type(None))
    return kind


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
