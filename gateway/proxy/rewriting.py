"""Where a request goes on to: the path that a service sees, and the address of a redirect.

A prefix is replaced as the Gateway API's ReplacePrefixMatch says: `/v1` for `/api` makes `/v1/orders` of `/api/orders`,
and `/` makes `/orders` of it. What is not replaced stays as the client spelled it. What is
rewritten or redirected begins with exactly one slash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from anumate.lib.problem import Problem
from gateway.proxy.paths import RequestPath, compile_pattern, has_dot_segments
from gateway.proxy.policies import Redirect
from gateway.proxy.table import Route

Path = Callable[[RequestPath], str]


class Rewriting:
    """What becomes of the paths that one rule takes.

    Raises:
        ValueError: a pattern or the groups it is replaced with are not understood.
    """

    __slots__ = ("path", "redirected")

    def __init__(self, route: Route, prefix: str) -> None:
        self.path: Path = _service_path(route, prefix)
        """The path that the service sees."""
        redirect = route.redirect
        self.redirected: Path = _replacing(route, prefix, redirect.path) if redirect.path else _unchanged
        """The path of a redirect's address."""


def _service_path(route: Route, prefix: str) -> Path:
    rewrite = route.rewrite
    if rewrite.pattern:
        return _substituting(rewrite.pattern, rewrite.path)
    if rewrite.path:
        return _replacing(route, prefix, rewrite.path)
    if not route.strip_prefix or route.path_type == "regex":
        return _as_it_came
    if route.path_type == "exact":
        return _root
    if not prefix:
        return _as_it_came  # nothing is taken off
    return _After(prefix, "")


def _replacing(route: Route, prefix: str, new: str) -> Path:
    if route.path_type == "regex":
        return _expanding(route.path, new)
    if route.path_type == "exact":
        whole = _one_path(new)
        return lambda path: whole
    return _After(prefix, new.rstrip("/"))


class _After:
    """What follows the prefix (nothing, or more segments with the slash before them), behind `start`."""

    __slots__ = ("_prefix", "_segments", "_start")

    def __init__(self, prefix: str, start: str) -> None:
        self._prefix = prefix
        self._segments = prefix.count("/")
        self._start = start

    def __call__(self, path: RequestPath) -> str:
        forwarded, prefix = path.forwarded, self._prefix
        if forwarded.startswith(prefix):
            return _one_path(self._start + forwarded[len(prefix) :])
        # Spelled with needless escapes or slashes. Its segments are those of the normal form: none holds a slash.
        spelled = re.match(rf"(?:/+[^/]+){{{self._segments}}}", forwarded)
        return _one_path(self._start + forwarded[spelled.end() :] if spelled else self._start)


def location(redirect: Redirect, path: str, query: bytes, *, scheme: str, authority: str, host: str) -> bytes:
    """The address that a redirect sends its client to; the query goes with it.

    `authority` is the request's host with its port, `host` without: another scheme has its own port (Gateway API,
    HTTPRequestRedirectFilter).
    """
    where = redirect.host or (host if redirect.scheme and redirect.scheme != scheme else authority)
    address = f"{redirect.scheme or scheme}://{where}{path}".encode()
    return address + b"?" + query if query else address


def without_keys(route: Route, query: bytes) -> tuple[bytes, Sequence[str]]:
    """The query as it may go on, and what stood where the route's `auth` has a key in it."""
    name = route.auth.query_parameter
    return _without(query, name.encode()) if name and query else (query, ())


def _without(query: bytes, name: bytes) -> tuple[bytes, list[str]]:
    """The query without the parameter, its other bytes as they were; and the parameter's values. The name is found in
    any of its encodings: services decode it, too.
    """
    rest, values = [], []
    for part in query.split(b"&"):
        said, _, value = part.partition(b"=")
        if _decoded(said) == name:
            values.append(_decoded(value).decode("latin-1"))
        else:
            rest.append(part)
    return (b"&".join(rest), values) if values else (query, values)


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _as_it_came(path: RequestPath) -> str:
    return path.forwarded


def _unchanged(path: RequestPath) -> str:
    return _one_path(path.forwarded)


def _root(_: RequestPath) -> str:
    return "/"


def _one_path(path: str) -> str:
    """With one slash in front: with two it would name a host (RFC 3986 §4.2), with none it would be no path."""
    return "/" + path.lstrip("/")


def _composed(path: str) -> str:
    """What an expression put together. Its groups were harmless where they stood, and need not be where they stand now.

    Raises:
        Problem: malformed_request, where a client would leave the path that the route's owner wrote.
    """
    path = _one_path(path)
    if has_dot_segments(path):
        raise Problem("malformed_request", "The path makes dot segments when the route rewrites it.")
    return path


def _expanding(pattern: str, new: str) -> Path:
    compiled = _checked(pattern, new)

    def path(path: RequestPath) -> str:
        match = compiled.fullmatch(path.forwarded) or compiled.fullmatch(path.matched)
        return _composed(match.expand(new)) if match else path.forwarded

    return path


def _substituting(pattern: str, new: str) -> Path:
    compiled = _checked(pattern, new)

    def path(path: RequestPath) -> str:
        spelled, normal = compiled.search(path.forwarded), compiled.search(path.matched)
        # Needless escapes must not hide from the rule what the service reads.
        hidden = normal and not (spelled and (spelled[0], spelled.start()) == (normal[0], normal.start()))
        return _composed(compiled.sub(new, path.matched if hidden else path.forwarded, 1))

    return path


_GROUP = re.compile(r"\\(g<([^>]*)>|[0-9]+|.?)")


_NUMBER = re.compile(r"[0-9]+")


def constant(new: str) -> str:
    """The replacement with a letter in place of each of its groups."""
    return _GROUP.sub(lambda escape: escape[0] if escape[1] in ("", "\\") else "x", new)


def check_groups(pattern: str, new: str) -> None:
    """Whether every group that the replacement names is one of the pattern's.

    Raises:
        BadPattern, ValueError: the pattern or a group is not understood.
    """
    _checked(pattern, new)


def _checked(pattern: str, new: str) -> Any:
    compiled = compile_pattern(pattern)
    for escape in _GROUP.finditer(new):
        name, bare = (escape[1], True) if escape[2] is None else (escape[2], False)
        if name == "\\":
            continue
        if _NUMBER.fullmatch(name):
            # A bare number with a zero in front, or of three digits, is a character in octal.
            known = int(name) <= compiled.groups and not (bare and (name[0] == "0" or len(name) > 2))
        else:
            known = not bare and name in compiled.groupindex
        if not known:
            raise ValueError(f"{escape[0]} names no group of the pattern.")
    return compiled
