"""Applies a document to a tenant: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from rest_framework.exceptions import ValidationError

from anumate.faces.configuration.difference import EntryChange, difference
from anumate.faces.configuration.exporting import VERSION, entries_of
from anumate.faces.configuration.reading import Document, step
from anumate.faces.configuration.sections import SECTIONS, Asker, Entry, Identity, Section, is_blank, is_same
from anumate.lib.problem import Problem
from registry.errors import as_problem
from registry.models import Service
from registry.services.changes import one_step

_TOP = {"version", *(section.name for section in SECTIONS)}


class Rejected(Exception):
    """The document is not applied. `code` is the API's; `line` is None for what was not read from a text."""

    def __init__(
        self, pointer: str, sentence: str, *, line: int | None = None, code: str = "validation_failed"
    ) -> None:
        where = ", ".join(part for part in (f"line {line}" if line else "", pointer) if part)
        super().__init__(f"{where}: {sentence}" if where else sentence)
        self.pointer = pointer
        self.sentence = sentence
        self.line = line
        self.code = code


@dataclass(frozen=True)
class _Place:
    """An entry in the document."""

    section: Section
    pointer: str
    entry: Entry


def apply(asker: Asker, document: Document, *, prune: bool = False, dry_run: bool = False) -> list[EntryChange]:
    """Make the tenant's configuration what the document says, in one transaction and one revision.

    What the document does not name stays, unless `prune`: then it goes, in those sections that the document has.
    A dry run does all of it and takes it back, so its answer is what the database would have said.

    Raises:
        Rejected: an entry is not valid, or what is to go is still used. Nothing is written.
    """
    places = list(_places(asker, document))
    with transaction.atomic():
        with one_step():
            before = entries_of(asker)
            for section in SECTIONS:
                _write(asker, document, section, [place for place in places if place.section is section])
            if prune:
                _prune(asker, document, places)
            after = entries_of(asker)
        if dry_run:
            transaction.set_rollback(True)
    return difference(before, after)


def _places(asker: Asker, document: Document) -> Iterator[_Place]:
    """Every entry, after a look at the form of the document."""
    value = document.value
    if not isinstance(value, dict):
        raise _rejected(document, "", "The document is a mapping with the fields version, services, routes and so on.")
    if unknown := [name for name in value if name not in _TOP]:
        raise _rejected(document, step(unknown[0]), "There is no such field.")
    if value.get("version", VERSION) != VERSION or isinstance(value.get("version"), bool):
        raise _rejected(document, "/version", f"Only version {VERSION} is known.")
    for section in SECTIONS:
        listed = value.get(section.name, [])
        if not isinstance(listed, list):
            raise _rejected(document, step(section.name), "This is a list.")
        plain = section.serializer(asker)
        seen: set[Identity] = set()
        for number, entry in enumerate(listed):
            pointer = f"/{section.name}/{number}"
            if not isinstance(entry, dict):
                raise _rejected(document, pointer, "This is a mapping.")
            if (identity := _identity(section, plain, entry)) in seen:
                raise _rejected(document, pointer, f"{section.title(entry)} stands here twice.")
            seen.add(identity)
            yield _Place(section, pointer, entry)


def _write(asker: Asker, document: Document, section: Section, places: list[_Place]) -> None:
    known = section.entries(asker) if places else {}
    plain = section.serializer(asker)
    for place in places:
        stored = known.get(_identity(section, plain, place.entry))
        if stored is None or not is_same(section.short(plain, place.entry), stored[0]):
            _store(asker, document, place, stored[1] if stored else None)


def _identity(section: Section, serializer: Any, entry: Entry) -> Identity:
    return section.identity_of(section.short(serializer, entry))


def _store(asker: Asker, document: Document, place: _Place, row: Any) -> None:
    section = place.section
    serializer = section.serializer(asker, row, data=_whole(section.serializer(asker), place.entry))
    view = section.view(asker)
    try:
        with transaction.atomic():
            serializer.is_valid(raise_exception=True)
            view.store("changed" if row else "created", row or view.new(), serializer.validated_data)
    except (ValidationError, IntegrityError, Problem) as error:
        raise _from(error, document, place) from None


def _whole(serializer: Any, entry: Entry) -> Entry:
    """The entry with the texts that are empty when they are left out; all other defaults are the serializer's."""
    blank = {name: "" for name, field in serializer.fields.items() if not field.read_only and is_blank(field)}
    return blank | entry


def _prune(asker: Asker, document: Document, places: list[_Place]) -> None:
    for section in reversed(SECTIONS):
        if section.name not in document.value:
            continue
        plain, view = section.serializer(asker), section.view(asker)
        kept = {_identity(section, plain, place.entry) for place in places if place.section is section}
        for identity, (entry, row) in section.entries(asker).items():
            if identity in kept or (isinstance(row, Service) and _is_in_use(row)):
                continue
            try:
                with transaction.atomic():
                    view.perform_destroy(row)
            except Exception as error:
                if (problem := as_problem(error)) is None:
                    raise
                sentence = f"{section.title(entry)} cannot be removed. {problem.detail}"
                raise _rejected(document, step(section.name), sentence, code=problem.code) from None


def _is_in_use(service: Service) -> bool:
    """Instances make their service's row when they register, and an operator's word outlives them: neither is declared
    in a file, so neither goes because it does not stand there."""
    return Service.objects.filter(Q(instances__live=True) | ~Q(state=Service.State.ENABLED), pk=service.pk).exists()


def _rejected(document: Document, pointer: str, sentence: str, *, code: str = "validation_failed") -> Rejected:
    return Rejected(pointer, sentence, line=document.line(pointer), code=code)


def _from(error: Exception, document: Document, place: _Place) -> Rejected:
    problem = as_problem(error)
    assert problem is not None  # noqa: S101  # the caller catches only what the API has an answer to
    first = problem.errors[0] if problem.errors else {"pointer": "", "detail": problem.detail}
    return _rejected(document, place.pointer + str(first["pointer"]), str(first["detail"]), code=problem.code)
