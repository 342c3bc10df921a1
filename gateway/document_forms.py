"""Forms for documents: each of their fields is asked for by itself, and the row gets the document whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from msgspec import inspect
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from gateway.control import documents
from gateway.control.rules import check_header
from registry.forms import PairsField, WordsField

LONG = 1000
"""A text that may be longer is typed into more than one line."""


def part(document: str, field: str) -> str:
    """The name of the form's field."""
    return f"{document}__{field}"


def parts(document: str, kind: type[msgspec.Struct]) -> list[str]:
    return [part(document, name) for name in kind.__struct_fields__]


def form_of(kinds: Mapping[str, type[msgspec.Struct]]) -> type[DocumentsForm]:
    """A form with a field for every field of these documents; to be mixed into the form of their row."""
    fields: dict[str, Any] = {"documents": kinds}
    for name, kind in kinds.items():
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)  # noqa: S101  # it is one by its type
        for field in info.fields:
            fields[part(name, field.name)] = _field(field)
    return type("DocumentsForm", (DocumentsForm,), fields)


class DocumentsForm(forms.Form):
    """Fills the fields from the row's documents, and the documents from the fields."""

    documents: Mapping[str, type[msgspec.Struct]] = {}
    instance: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, kind in self.documents.items():
            whole = msgspec.structs.asdict(_stored(kind, getattr(self.instance, name)))
            for field, value in whole.items():
                self.initial.setdefault(part(name, field), documents.plain(value))

    def clean(self) -> dict[str, Any]:
        super().clean()
        for name, kind in self.documents.items():
            told = {field: part(name, field) for field in kind.__struct_fields__}
            if any(each not in self.cleaned_data for each in told.values()):
                continue  # said already, or not asked for in this form
            try:
                document = documents.read(kind, self._typed(told))
            except documents.Misread as error:
                where = told.get(error.path.partition(".")[0], next(iter(told.values())))
                self.add_error(where, ValidationError(error.sentence))
            else:
                setattr(self.instance, name, documents.short(document))
        return self.cleaned_data

    def _typed(self, told: Mapping[str, str]) -> dict[str, Any]:
        """What was typed, without what was left empty: that is the default."""
        typed = {field: self.cleaned_data[name] for field, name in told.items()}
        return {field: value for field, value in typed.items() if value is not None}


def _stored(kind: type[msgspec.Struct], value: Any) -> msgspec.Struct:
    """The row's document; what cannot be read is shown as nothing, for the form must open to mend it."""
    try:
        return documents.read(kind, value)
    except ValidationError:
        return kind()


def _field(field: inspect.Field) -> forms.Field:
    kind: inspect.Type = field.type
    meta: dict[str, Any] = {}
    if isinstance(kind, inspect.Metadata):
        meta, kind = kind.extra_json_schema or {}, kind.type
    options: dict[str, Any] = {
        "label": field.name.replace("_", " ").capitalize(),
        "help_text": meta.get("description", ""),
        "required": False,
    }
    return _made(kind, field.default, options)


def _made(kind: inspect.Type, default: Any, options: dict[str, Any]) -> forms.Field:
    if isinstance(kind, inspect.BoolType):
        return forms.BooleanField(widget=UnfoldBooleanSwitchWidget(), **options)
    if isinstance(kind, inspect.LiteralType):
        return _choice(kind, default, options)
    if isinstance(kind, inspect.IntType):
        return forms.IntegerField(
            widget=UnfoldAdminIntegerFieldWidget(), min_value=kind.ge, max_value=kind.le, **options
        )
    if isinstance(kind, inspect.FloatType):
        return forms.FloatField(widget=UnfoldAdminDecimalFieldWidget(), min_value=kind.ge, max_value=kind.le, **options)
    if isinstance(kind, inspect.VarTupleType):
        return _list(_bare(kind.item_type), options)
    long = isinstance(kind, inspect.StrType) and (kind.max_length or 0) > LONG
    widget = UnfoldAdminTextareaWidget(attrs={"rows": 2}) if long else UnfoldAdminTextInputWidget()
    return forms.CharField(widget=widget, **options)


def _choice(kind: inspect.LiteralType, default: Any, options: dict[str, Any]) -> forms.Field:
    choices = [(value, value or "-") for value in kind.values]
    coerce: Any = type(default)
    return forms.TypedChoiceField(
        choices=choices, coerce=coerce, empty_value=default, widget=UnfoldAdminSelectWidget(), **options
    )


def _list(item: inspect.Type, options: dict[str, Any]) -> forms.Field:
    if isinstance(item, inspect.LiteralType):
        choices = [(value, value) for value in item.values]
        return forms.MultipleChoiceField(choices=choices, widget=UnfoldAdminCheckboxSelectMultipleWidget(), **options)
    if isinstance(item, inspect.StructType):
        return PairsField(rule=check_header, **options)
    if isinstance(item, inspect.IntType):
        return NumbersField(**options)
    return WordsField(**options)


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


class NumbersField(WordsField):
    """Whole numbers, separated by spaces or commas."""

    def to_python(self, value: Any) -> Any:
        try:
            return [int(word) for word in super().to_python(value)]
        except ValueError:
            raise ValidationError("These are whole numbers.") from None
