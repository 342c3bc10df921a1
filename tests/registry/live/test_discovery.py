"""Finding instances, against a filter that goes through all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from registry.live.catalog import Catalog
from registry.live.discovery import Query, parse_query, patience
from registry.live.instances import Document, Fact, Instance, Key
from registry.live.ops import Change

NOW = 1_800_000_000.0
VERSIONS = ("", "1.0", "1.5.2", "2.0rc1", "2.0", "latest")
CONSTRAINTS = (">=1.5", ">=1,<2", "==2.0", "!=1.0", "~=1.5")
WORDS = ("http_api", "grpc_api", "cache")

some = st.lists(st.sampled_from(WORDS), max_size=3, unique=True).map(tuple)
zones = st.sampled_from(("", "eu-1", "eu-2", "us-1"))
documents = st.builds(Document, version=st.sampled_from(VERSIONS), capabilities=some, tags=some, zone=zones)
facts = st.fixed_dictionaries(
    {},
    optional={
        "probe": st.sampled_from(("healthy", "degraded", "unhealthy")).map(Fact),
        "reported": st.sampled_from(("healthy", "unhealthy")).map(Fact),
        "state": st.builds(
            Fact, st.sampled_from(("enabled", "draining")), expires_at=st.sampled_from((0.0, NOW, NOW + 1))
        ),
    },
)
keys = st.builds(
    Key,
    st.sampled_from(("default", "acme")),
    st.sampled_from(("orders", "stock", "users")),
    st.sampled_from(tuple("abcdef")),
)
queries = st.builds(
    Query,
    service_name=st.sampled_from(("", "orders", "stock", "nobody")),
    capabilities=some,
    tags=some,
    zone=zones,
    zone_strict=st.booleans(),
    status=st.sampled_from(("", "any", "healthy", "unknown", "unhealthy")),
    version=st.none() | st.sampled_from(CONSTRAINTS).map(SpecifierSet),
)


def within(constraint: SpecifierSet, version: str) -> bool:
    try:
        return Version(version) in SpecifierSet(str(constraint), prereleases=True)
    except InvalidVersion:
        return False


def fits(query: Query, each: Instance) -> bool:
    document = each.document
    if query.status not in {"", "any", each.health} or (not query.status and not each.eligible(NOW)):
        return False
    if query.version is not None and not within(query.version, document.version):
        return False
    return all(word in document.capabilities for word in query.capabilities) and all(
        word in document.tags for word in query.tags
    )


def naively(query: Query, everyone: list[Instance]) -> list[Key]:
    found: list[Key] = []
    for service in ("orders", "stock", "users"):
        if query.service_name in {"", service}:
            fitting = [each for each in everyone if each.key.service == service and fits(query, each)]
            near = [each for each in fitting if each.document.zone == query.zone]
            falls_back = not (query.zone_strict or query.status)
            chosen = fitting if not query.zone or (not near and falls_back) else near
            found += sorted(each.key for each in chosen)
    return found


@given(st.dictionaries(keys, st.tuples(documents, facts), max_size=15), queries)
def test_it_finds_what_a_look_at_every_instance_would_find_and_in_that_order(
    known: dict[Key, tuple[Document, dict[str, Fact]]], query: Query
) -> None:
    catalog = Catalog()
    for seq, (key, (document, about)) in enumerate(known.items(), 1):
        catalog.apply(Change(seq, "put", key, document, NOW))
        catalog.apply(*(Change(seq, "fact", key, kind=kind, fact=fact) for kind, fact in about.items()))
    everyone = [
        Instance(key, document, NOW, about) for key, (document, about) in known.items() if key.tenant == "default"
    ]
    assert [each.key for each in query.find(catalog, "default", NOW)] == naively(query, everyone)


@pytest.mark.parametrize(
    ("eu", "expected"),
    [
        ((), ["a", "b"]),
        ((Fact("unhealthy"),), ["b"]),
        ((Fact("unhealthy"), Fact("unhealthy")), ["c"]),
    ],
)
def test_a_zone_is_left_when_none_of_it_may_get_traffic(eu: tuple[Fact, ...], expected: list[str]) -> None:
    catalog = Catalog()
    for seq, (name, zone) in enumerate((("a", "eu"), ("b", "eu"), ("c", "us")), 1):
        catalog.apply(Change(seq, "put", Key("default", "orders", name), Document(zone=zone), NOW))
    for name, fact in zip("ab", eu, strict=False):
        catalog.apply(Change(9, "fact", Key("default", "orders", name), kind="probe", fact=fact))
    assert [each.key.id for each in Query(zone="eu").find(catalog, "default", NOW)] == expected


def test_a_wait_without_a_duration_is_five_minutes_and_no_wait_is_none() -> None:
    assert parse_query("index=e-1&wait=").wait == 300
    assert parse_query("index=e-1").wait is None
    assert parse_query("index=e-1&wait=10m").wait == 600


def test_a_wait_is_up_to_a_sixteenth_longer_than_asked() -> None:
    assert [patience(32, chance) for chance in (0, 0.5, 1)] == [32, 33, 34]
