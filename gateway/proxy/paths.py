"""A request's path in the form that rules are matched against, and the regular expressions that may match it."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import re2

from anumate.lib.problem import Problem

_LINEAR: Final = re2.Options()
_LINEAR.log_errors = False  # the error is raised, too
# Of an automaton that is kept busy, more memory makes others wait longer until RE2 gives it up.
_LINEAR.max_mem = 1 << 17


class BadPattern(ValueError):
    """A path is no regular expression."""


def compile_pattern(path: str) -> Any:
    """A regular expression whose matching takes time linear in the path (RE2's): no tenant's route stalls the others.
    Escapes in it (`%c3`) mean what they mean in a path, however they are spelled.

    Raises:
        BadPattern: it is none, or one that RE2 does not take (back-references, look-around).
    """
    try:
        return re2.compile(_ESCAPE.sub(lambda escape: re.escape(_unescape(escape)), path), options=_LINEAR)
    except re2.error as error:
        reason = error.args[0] if error.args else "it is not understood"
        raise BadPattern(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None


class RequestPath(NamedTuple):
    """`matched` is the normal form, in which several slashes are one; `forwarded` the path as it came, less its dot
    segments."""

    matched: str
    forwarded: str


# Anything but plain visible ASCII, and what only a closer look can judge: escapes, backslashes, dot and empty segments.
_SUSPECT = re.compile(rb"[^!\"$&-\[\]-~]|/[./]").search
# The last ones are how overlong UTF-8 begins (RFC 3629 §10), in which old decoders read a slash or a dot.
_REFUSED = re.compile(
    rb"[^!\"$-\[\]-~]|%(?![0-9A-Fa-f]{2})|%2f|%5c|%00|/\.\.?;|%c[01]|%e0%[89]|%f[08c]%8", re.IGNORECASE
).search
_SLASHES = re.compile("//+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:[;/]|\Z)", re.IGNORECASE).search
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# Services decode `%3A` like `%61`. What would change the path's shape (`/\\?#%`) stays escaped.
_PLAIN: Final = frozenset(map(chr, range(0x21, 0x7F))) - frozenset("/\\?#%")


def read_path(raw: bytes) -> RequestPath:
    """The path of a request target, fit for matching.

    Escaped slashes, backslashes and NULs are refused: servers disagree on what they mean, and a rule that one of them
    reads differently is a rule that can be walked around. So several slashes match like one, as most servers read them.
    """
    if raw[:1] != b"/":
        raise Problem("malformed_request", "The request target has no path that starts with a slash.")
    if _SUSPECT(raw) is None:
        path = raw.decode("ascii")
        return RequestPath(path, path)
    if _REFUSED(raw):
        raise Problem(
            "malformed_request",
            "The path holds a control character, a backslash, #, %2F, %5C, %00, overlong UTF-8 or a broken escape.",
        )
    path = raw.decode("ascii")
    decoded = _ESCAPE.sub(_unescape, path)
    if _REFUSED(decoded.encode("ascii")):
        raise Problem("malformed_request", "The path hides dot segments.")
    plain = _without_dot_segments(decoded)
    matched = _SLASHES.sub("/", plain)
    if plain == decoded:
        return RequestPath(matched, path)
    return RequestPath(matched, _without_dot_segments(_ESCAPE.sub(_unescape_unreserved, path)))


def has_dot_segments(path: str) -> bool:
    """Whether a reader may take a segment of it for `.` or `..`, in whatever spelling."""
    return _DOT_SEGMENT(path) is not None


def _unescape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _PLAIN else escape[0].upper()


def _unescape_unreserved(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0]


def _without_dot_segments(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
