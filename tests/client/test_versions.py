"""Version constraints, against the library that the registry reads them with."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from anumate_integration_service.versions import constraint, parse

NUMBER = st.integers(0, 3)
RELEASE = st.lists(NUMBER, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
EPOCH = st.sampled_from(["", "", "", "1!"])
PRE = st.sampled_from(["", "", "", "a1", "b2", "rc1", ".alpha", "-preview3", "_c2", "RC0"])
POST = st.sampled_from(["", "", "", ".post1", "-2", ".rev", "r3"])
DEV = st.sampled_from(["", "", "", ".dev1", "dev", "-dev2"])
LOCAL = st.sampled_from(["", "", "", "+abc", "+1.2", "+ubuntu-1", "+2"])
PUBLIC = st.builds("{}{}{}{}{}".format, EPOCH, RELEASE, PRE, POST, DEV)
ANY = st.builds("{}{}".format, PUBLIC, LOCAL)
CLAUSE = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), PUBLIC),
    st.builds("{} {}".format, st.sampled_from(["==", "!="]), ANY),
    st.builds("{}{}{}.*".format, st.sampled_from(["==", "!="]), EPOCH, RELEASE),
    st.builds("~={}{}.{}{}".format, EPOCH, NUMBER, RELEASE, st.sampled_from(["", "a1", ".post1", ".dev0"])),
)
CONSTRAINT = st.lists(CLAUSE, min_size=1, max_size=3).map(",".join)


@given(CONSTRAINT, ANY)
@example("<0.post1", "0.dev1")
@example("<0.post1", "0.post1.dev1")
@example(">2a1", "2.post1")
@example(">2a1", "2a1.post1")
@example(">2.dev1", "2.post1")
@example(">2.post1", "2.post1+local")
@example(">2.post1.dev1", "2.post1.dev1+local")
def test_a_version_fits_exactly_where_the_registry_says_so(text: str, version: str) -> None:
    assert constraint(text)(version) == SpecifierSet(text).contains(Version(version), prereleases=True)


@given(ANY, ANY)
def test_versions_sort_as_the_registry_sorts_them(one: str, other: str) -> None:
    first, second = parse(one), parse(other)
    assert first is not None
    assert second is not None
    assert (first.order < second.order) == (Version(one) < Version(other))
    assert (first.order == second.order) == (Version(one) == Version(other))


@given(st.text(alphabet="0123.abrcv!+-_ dev", max_size=12))
def test_what_is_a_version_is_one_for_the_registry_too(text: str) -> None:
    try:
        expected = Version(text) is not None
    except ValueError:
        expected = False
    assert (parse(text) is not None) == expected


@pytest.mark.parametrize(
    ("text", "version", "fits"),
    [
        (">=1.4,<2", "1.10", True),
        (">=1.4,<2", "1.3.9", False),
        (">=1.4,<2", "2.0rc1", False),
        ("==1.*", "1.9.post2", True),
        ("~=1.2", "1.9", True),
        ("~=1.2", "2", False),
        ("!=1.5.1", "1.5.1+local", False),
        ("1.2", "1.2.0", True),
        ("", "1.2.0", True),
        (">=1", "latest", False),
        (">=1", "", False),
    ],
)
def test_constraints_read_as_people_mean_them(text: str, version: str, fits: bool) -> None:
    assert constraint(text)(version) is fits


@pytest.mark.parametrize("text", ["rubbish", ">=", "=>1", ">=1.*", "~=1", "<1+local", "==1a1.*", "1 2"])
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"constraint|only|needs"):
        constraint(text)
