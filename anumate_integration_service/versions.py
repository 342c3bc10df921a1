"""Version constraints by PEP 440, as the registry reads them: `>=1.4,<2`, `==1.*`, `~=1.2`, `!=1.5.1`.

Small and of our own, because a service that installs the client should get nothing but an HTTP library with it.
A pre-release counts like any other version here: what runs, runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

Test = Callable[["Version"], bool]

_VERSION: Final = re.compile(
    r"""v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)
        (?:[-_.]?(?P<pre>alpha|beta|preview|pre|rc|a|b|c)[-_.]?(?P<pre_number>\d*))?
        (?P<post>-(?P<post_bare>\d+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>\d*))?
        (?P<dev>[-_.]?dev[-_.]?(?P<dev_number>\d*))?
        (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_CLAUSE: Final = re.compile(r"\s*(?P<operator>~=|==|!=|<=|>=|<|>)?\s*(?P<version>[^\s*]+?)(?P<any>\.\*)?\s*")
_PRE: Final = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_NEVER, _ALWAYS = (-math.inf, 0), (math.inf, 0)


class Version(NamedTuple):
    """A version in its parts; `None` is a part that it does not have."""

    epoch: int
    release: tuple[int, ...]
    pre: tuple[str, int] | None
    post: int | None
    dev: int | None
    local: str | None

    @property
    def base(self) -> tuple[int, tuple[int, ...]]:
        return self.epoch, _trimmed(self.release)

    @property
    def early(self) -> bool:
        return self.pre is not None or self.dev is not None

    @property
    def public(self) -> Version:
        return self._replace(local=None)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts as PEP 440 asks: 1.dev1 < 1a1 < 1 < 1+local < 1.post1."""
        if self.pre is not None:
            pre: tuple[Any, ...] = (0, ord(self.pre[0][0]), self.pre[1])
        else:
            pre = _NEVER if self.post is None and self.dev is not None else _ALWAYS
        post = -1 if self.post is None else self.post
        dev = math.inf if self.dev is None else self.dev
        return *self.base, pre, post, dev, _local_order(self.local)


@lru_cache(4096)
def parse(text: str) -> Version | None:
    """The version that the text is; None when it is none."""
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        return None
    part = found.groupdict()
    pre = (part["pre"] or "").lower()
    return Version(
        int(part["epoch"] or 0),
        tuple(int(number) for number in part["release"].split(".")),
        (_PRE.get(pre, pre), int(part["pre_number"] or 0)) if pre else None,
        None if part["post"] is None else int(part["post_bare"] or part["post_number"] or 0),
        None if part["dev"] is None else int(part["dev_number"] or 0),
        part["local"].lower() if part["local"] else None,
    )


@lru_cache(1024)
def constraint(text: str) -> Callable[[str], bool]:
    """Whether a version is within the comma-separated constraints. A bare version means exactly that one.

    Raises:
        ValueError: the text holds no constraint that PEP 440 knows.
    """
    tests = [_clause(clause) for clause in text.split(",") if clause.strip()]

    def holds(version: str) -> bool:
        parsed = parse(version)
        return parsed is not None and all(test(parsed) for test in tests)

    return holds


def _clause(text: str) -> Test:
    found = _CLAUSE.fullmatch(text)
    version = parse(found["version"]) if found else None
    if found is None or version is None:
        raise ValueError(f"{text.strip()!r} is no version constraint, such as >=1.4 or ==1.*")
    operator = found["operator"] or "=="
    exact = operator in {"==", "!="}
    if found["any"] and (not exact or version.early or version.post is not None or version.local):
        raise ValueError(f"{text.strip()!r}: only == and != of a release may end in .*")
    if version.local and not exact:
        raise ValueError(f"{text.strip()!r}: only == and != may name a local version")
    if found["any"]:
        within = _within(version.epoch, version.release)
        return within if operator == "==" else lambda other: not within(other)
    if operator == "~=" and len(version.release) < 2:
        raise ValueError(f"{text.strip()!r}: ~= needs a release of two numbers or more")
    return _OPERATORS[operator](version)


def _equal(wanted: Version) -> Test:
    if wanted.local:
        return lambda other: other.order == wanted.order
    return lambda other: other.public.order == wanted.order


def _unequal(wanted: Version) -> Test:
    equal = _equal(wanted)
    return lambda other: not equal(other)


def _compatible(wanted: Version) -> Test:
    within = _within(wanted.epoch, wanted.release[:-1])
    return lambda other: other.public.order >= wanted.order and within(other)


def _before(wanted: Version) -> Test:
    """Before 2 does not mean 2rc1, nor before 2.post1 2.post1.dev1, unless the constraint names a pre-release."""
    end = wanted if wanted.early else wanted._replace(dev=0)
    return lambda other: other.order < end.order


def _after(wanted: Version) -> Test:
    """After 1 does not mean 1.post1 or 1+local, nor after 1a1 1a1.post1, unless the constraint names a post-release."""
    if wanted.dev is not None:
        following = wanted._replace(dev=wanted.dev + 1, local=None)
    elif wanted.post is not None:
        following = wanted._replace(post=wanted.post + 1, dev=0, local=None)
    else:
        return lambda other: other.order > wanted.order and (other.base, other.pre) != (wanted.base, wanted.pre)
    return lambda other: other.order >= following.order


def _within(epoch: int, release: tuple[int, ...]) -> Test:
    length = len(release)

    def within(other: Version) -> bool:
        padded = other.release + (0,) * (length - len(other.release))
        return other.epoch == epoch and padded[:length] == release

    return within


_OPERATORS: Final[dict[str, Callable[[Version], Test]]] = {
    "==": _equal,
    "!=": _unequal,
    "~=": _compatible,
    "<": _before,
    ">": _after,
    "<=": lambda wanted: lambda other: other.public.order <= wanted.order,
    ">=": lambda wanted: lambda other: other.public.order >= wanted.order,
}


def _trimmed(release: tuple[int, ...]) -> tuple[int, ...]:
    """1.0 and 1 are the same release."""
    length = len(release)
    while length > 1 and release[length - 1] == 0:
        length -= 1
    return release[:length]


def _local_order(local: str | None) -> tuple[Any, ...]:
    """No local part sorts first; numbers sort after words."""
    if local is None:
        return (-1,)
    parts = re.split(r"[-_.]", local)
    return 0, tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
