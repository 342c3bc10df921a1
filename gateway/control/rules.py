"""What routes and policies may say. Admin, API and models ask here; each rule raises Django's ValidationError."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from django.core.exceptions import ValidationError
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from anumate.lib.problem import Problem
from gateway.proxy.exchange import REFUSED_METHODS
from gateway.proxy.fields import CONSUMER
from gateway.proxy.paths import BadPattern, compile_pattern, has_dot_segments, read_path
from gateway.proxy.patterns import MOST_INSTRUCTIONS, has_room
from gateway.proxy.router import no_room
from registry.live.keys import SCOPES

_NAME: Final = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NUMERIC: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""Resolvers read such a name as an IPv4 address in one of its old spellings."""
_PORT: Final = re.compile(r"0*([1-9][0-9]{0,4})", re.ASCII)
_NEW_PATH: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
"""RFC 3986 §3.3."""
_HIDDEN: Final = re.compile(r"%5c|%00", re.IGNORECASE)
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
MOST_OF_A_FIELD: Final = 8200
"""Characters of a field that a request comes with: enough for the longest token."""
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")
_COOKIE_VALUE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{0,1000}")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_BY: Final = frozenset({"key", "address", "tenant", "route"})
RESERVED_ROUTES: Final = frozenset({"explain"})
"""What else is addressed below /v1/routes/."""
COMMON_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MOST_LIMITS: Final = 10
"""Further rate-limit policies of one route; each request asks for them all."""
MOST: Final = 100
"""Hosts, methods, headers, query parameters or targets of one route."""


def check_route_name(name: str) -> None:
    if name in RESERVED_ROUTES:
        raise ValidationError(f"No route can be called {name}: that address has another meaning.")


def check_path(path: str, path_type: str) -> None:
    if "//" in path:
        raise ValidationError("A path has no //: some servers read it as one slash, and others as two.")
    if path_type == "regex":
        try:
            instructions = compile_pattern(path).programsize
        except BadPattern as error:
            raise ValidationError(f"This is no regular expression that RE2 takes: {error}.") from None
        if instructions > MOST_INSTRUCTIONS:
            raise ValidationError(
                f"This regular expression is too large: RE2 makes {instructions:,} instructions of it, and "
                f"{MOST_INSTRUCTIONS:,} are the most."
            )
        return
    try:
        read_path(path.encode())
    except Problem as problem:
        raise ValidationError(problem.detail) from None
    if has_dot_segments(path):
        raise ValidationError("Requests are matched without /./ and /../, so this path would match none.")
    if "?" in path or "#" in path:
        raise ValidationError("A path has no ? and no #; ask for query parameters on their own.")


def check_room(path: str, beside: Mapping[str, Iterable[str]]) -> None:
    """A regular expression can be tried beside the others of each of its hosts."""
    for host, others in beside.items():
        if not has_room(compile_pattern(path), _compiled(others)):
            raise ValidationError(no_room(host))


def _compiled(paths: Iterable[str]) -> Iterator[Any]:
    for path in paths:
        with suppress(BadPattern):  # is left out, and named elsewhere
            yield compile_pattern(path)


def check_new_path(path: str) -> None:
    """A path that takes another's place, or the constant parts of one that groups are put into."""
    if "?" in path or "#" in path:
        raise ValidationError("The new path has no ? and no #; the request's query goes with it.")
    if not _NEW_PATH.fullmatch(path):
        raise ValidationError(
            "The new path holds a space, a backslash, a broken escape or a character that no path has: write it as %20."
        )
    if _HIDDEN.search(path):
        raise ValidationError("The new path holds %5C or %00, which servers read differently.")
    if "//" in path:
        raise ValidationError("The new path has no //: some servers read it as one slash, and others as two.")
    if has_dot_segments("/" + path):
        raise ValidationError("The new path has no /./ and /../, in whatever spelling: write what they lead to.")


def check_host(host: str) -> None:
    name = host.removeprefix("*.")
    if not _NAME.fullmatch(name) or (_NUMERIC.fullmatch(name) and not _is_ip(host, IPv4Address)):
        raise ValidationError(f"{host!r} is no host name. Use api.example.com or *.example.com, without a port.")


def is_host(host: str) -> bool:
    """Whether it is a host of an address: a name in any case, IPv4, or IPv6 in brackets."""
    if host.startswith("["):
        return host.endswith("]") and _is_ip(host[1:-1], IPv6Address)
    return _is_ip(host, IPv4Address) or (
        _NAME.fullmatch(host.lower()) is not None and not _NUMERIC.fullmatch(host.lower())
    )


def _is_ip(text: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    try:
        return "%" not in text and kind(text) is not None
    except ValueError:
        return False


def is_authority(text: str) -> bool:
    """Whether it is a host, with a port or without."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return is_host(text)
    number = _PORT.fullmatch(port)
    return number is not None and int(number[1]) <= 65_535 and is_host(host)


def check_authority(text: str) -> None:
    if not is_authority(text):
        raise ValidationError(
            f"{text!r} is no host. Use www.example.com, 10.0.0.7 or [fd00::7], with a port of 1 to 65535 if need be."
        )


def check_method_name(method: str) -> None:
    if not _METHOD.fullmatch(method):
        raise ValidationError(f"{method!r} is no method. Methods are upper-case words like GET.")


def check_method(method: str) -> None:
    """A method that requests may come with."""
    check_method_name(method)
    if method in REFUSED_METHODS:
        raise ValidationError(f"The gateway never takes {method}.")


def check_header(name: str, value: str, most: int = 1000) -> None:
    if not TOKEN.fullmatch(name):
        raise ValidationError(f"{name!r} is no header name.")
    if len(value) > most or not _FIELD_VALUE.fullmatch(value):
        raise ValidationError(f"The value of {name} must be visible ASCII, at most {most} characters.")


def check_condition(name: str, value: str) -> None:
    """A header that requests must have for a route or a target."""
    check_header(name, value)
    check_told_by_clients(name)


def check_told_by_clients(name: str) -> None:
    """Refuse a header of which only the gateway itself has to tell: what a client says there is dropped."""
    if as_services_read(name).startswith(CONSUMER):
        raise ValidationError(f"{name} is the gateway's own to write: clients could say there what they like.")


def as_services_read(name: str) -> bytes:
    """A header's name in lower case, and as CGI and WSGI services read it."""
    return name.lower().replace("_", "-").encode()


def check_field(name: str, value: str) -> None:
    """A field of a request that is asked about."""
    check_header(name, value, MOST_OF_A_FIELD)


def check_parameter(name: str, value: str) -> None:
    if not 0 < len(name) <= 200 or len(value) > 1000:
        raise ValidationError("A query parameter has a name of 1 to 200 characters and a value of at most 1000.")


def check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise ValidationError(f"{scope!r} is no scope. Known are {', '.join(SCOPES)}.")


def check_version(specifier: str) -> None:
    try:
        SpecifierSet(specifier)
    except InvalidSpecifier:
        raise ValidationError(f"{specifier!r} is no version specifier. Use one like >=2,<3 (PEP 440).") from None


def check_by(by: str) -> None:
    if by in _BY:
        return
    if not by.startswith("header:") or not TOKEN.fullmatch(by.removeprefix("header:")):
        raise ValidationError("Use key, address, tenant, route or header:<name>.")
    check_told_by_clients(by.removeprefix("header:"))


def check_cookie(name: str, value: str) -> None:
    """RFC 6265 §4.1.1."""
    if not TOKEN.fullmatch(name) or not _COOKIE_VALUE.fullmatch(value):
        raise ValidationError("A cookie has a name like session and a value without spaces, quotes, commas and ;.")


def check_targets(targets: Sequence[Mapping[str, Any]]) -> None:
    """Each target with `service`, and `version`, `weight`, `tags`, `header` and `cookie` where it has them."""
    seen = [
        (each["service"], each.get("version", ""), sorted(each.get("tags") or ()), *_choice(each)) for each in targets
    ]
    if any(one in seen[:number] for number, one in enumerate(seen)):
        raise ValidationError("Two targets have the same service, version, tags, header and cookie.")
    if targets and not any(each.get("weight", 100) and _choice(each) == (None, None) for each in targets):
        raise ValidationError("At least one target that takes any request needs a weight above 0.")


def _choice(target: Mapping[str, Any]) -> tuple[Any, Any]:
    """The header and cookie by which requests choose the target."""
    return target.get("header") or None, target.get("cookie") or None


def check_reachable(tenant: str, hosts: Iterable[str], owner_of: Callable[[str], str]) -> None:
    """Refuse a host whose requests never reach this tenant."""
    for host in hosts:
        if not host.startswith("*.") and owner_of(host) != tenant:
            raise ValidationError(f"Requests for {host} do not come to tenant {tenant}, which does not own that name.")
