"""Instances of one service say nearly the same of themselves: what they say alike stands in memory once."""

from __future__ import annotations

from sys import intern
from typing import TypeVar

from registry.live.instances import Document, Key

T = TypeVar("T")


def share_key(key: Key) -> Key:
    """The same key; the names of tenant and service are those of every other."""
    return Key(intern(key.tenant), intern(key.service), key.id)


def share_document(document: Document, sibling: Document) -> Document:
    """The same document, made of the sibling's parts where they are equal."""
    return Document(
        version=_one(document.version, sibling.version),
        endpoints=_one(document.endpoints, sibling.endpoints),
        capabilities=_one(document.capabilities, sibling.capabilities),
        tags=_one(document.tags, sibling.tags),
        zone=intern(document.zone),
        weight=document.weight,
        metadata=_one(document.metadata, sibling.metadata),
        lease_ttl=document.lease_ttl,
    )


def _one(value: T, known: T) -> T:
    return known if value == known else value
