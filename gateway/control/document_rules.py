"""What the fields of a document mean for each other, and what bounds cannot say. Raises Django's ValidationError."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.core.exceptions import ValidationError

from gateway.control import rules
from gateway.control.rules import TOKEN, check_authority, check_header, check_method, check_path
from gateway.proxy import policies
from gateway.proxy.fields import HANDLED, OURS
from gateway.proxy.rewriting import check_groups, constant
from registry.live.addresses import refusal
from registry.services.catalogue import check_service_name

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}")
_PARAMETER: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NOT_EDITABLE: Final = HANDLED - {b"authorization", b"forwarded", b"x-real-ip"} | {b"retry-after", b"date"}
"""Framing, and what says who speaks and when: the gateway's own to write."""


def check_document(document: object) -> None:
    """What the fields of a document mean for each other, and words that bounds cannot describe."""
    if (check := _DOCUMENTS.get(type(document))) is not None:
        check(document)


def _rewrite(rewrite: policies.Rewrite) -> None:
    if rewrite.host:
        check_authority(rewrite.host)
    if rewrite.pattern:
        check_path(rewrite.pattern, "regex")
        if not rewrite.path:
            raise ValidationError("A pattern needs the path that takes its place.")
        check_replacement(rewrite.pattern, rewrite.path)
    elif rewrite.path and not rewrite.path.startswith(("/", "\\")):
        raise ValidationError("The new path starts with a slash.")
    rules.check_new_path(constant(rewrite.path))


def check_replacement(pattern: str, new: str) -> None:
    """The groups that a new path names are the pattern's."""
    try:
        check_groups(pattern, new)
    except ValueError as error:
        raise ValidationError(f"The new path does not fit the pattern: {error}") from None


def check_new_path(path: str, path_type: str, document: Mapping[str, Any]) -> None:
    """What a rewrite or redirect puts in the place of the route's path: for a regular expression it names groups that
    there are, for any other path it is one itself."""
    new = document.get("path", "")
    if not new or document.get("pattern"):
        return
    if path_type == "regex":
        check_replacement(path, new)
    else:
        rules.check_new_path(new)


def _redirect(redirect: policies.Redirect) -> None:
    if not redirect.status and redirect != policies.Redirect():
        raise ValidationError("A redirect needs its status.")
    if redirect.status and redirect == policies.Redirect(redirect.status):
        raise ValidationError("A redirect changes scheme, host or path, or else it comes back for ever.")
    if redirect.host:
        check_authority(redirect.host)
    if redirect.path and not redirect.path.startswith("/"):
        raise ValidationError("The new path starts with a slash.")
    rules.check_new_path(constant(redirect.path))


def _header_edits(edits: policies.HeaderEdits) -> None:
    for pair in (*edits.set, *edits.add):
        check_header(pair.name, pair.value)
    for name in (*(pair.name for pair in (*edits.set, *edits.add)), *edits.remove):
        _editable(name)


def _editable(name: str) -> None:
    if not TOKEN.fullmatch(name):
        raise ValidationError(f"{name!r} is no header name.")
    read = rules.as_services_read(name)
    if read in _NOT_EDITABLE or read.startswith((*OURS, b"ratelimit")):
        raise ValidationError(f"{name} is the gateway's own to write.")


def _mirror(mirror: policies.Mirror) -> None:
    if mirror.service:
        check_service_name(mirror.service)


def _cors(cors: policies.Cors) -> None:
    for origin in cors.origins:
        scheme, _, authority = origin.partition("://")
        # Browsers take names with an underscore, too.
        known = _SCHEME.fullmatch(scheme) and rules.is_authority(authority.replace("_", "x"))
        if origin != "*" and not known:
            raise ValidationError(f"{origin!r} is no origin. Use one like https://app.example.com, without a path.")
    if "*" in cors.origins and cors.credentials:
        raise ValidationError("Credentials for every origin would let any page act for the user: name the origins.")
    for method in cors.methods:
        check_method(method)
    for name in (*cors.headers, *cors.expose):
        if not TOKEN.fullmatch(name):
            raise ValidationError(f"{name!r} is no header name.")


def _retry(retry: policies.Retry) -> None:
    for method in retry.methods:
        check_method(method)
    if retry.backoff > retry.backoff_limit:
        raise ValidationError("The first wait is not longer than the longest one.")


def _auth(auth: policies.Auth) -> None:
    if auth.query_parameter and not _PARAMETER.fullmatch(auth.query_parameter):
        raise ValidationError("The name of a query parameter is made of letters, digits, _ and -.")


def _sticky(sticky: policies.Sticky) -> None:
    kind, _, name = sticky.by.partition(":")
    if sticky.by in ("", "key", "address"):
        return
    if kind not in ("header", "cookie") or not TOKEN.fullmatch(name):
        raise ValidationError("Use key, address, header:<name> or cookie:<name>.")
    if kind == "header":
        rules.check_told_by_clients(name)


def _outlier(outlier: policies.Outlier) -> None:
    if outlier.base_seconds > outlier.max_seconds:
        raise ValidationError("The first time is not longer than the longest one.")


def _tls(tls: policies.Tls) -> None:
    name = f"[{tls.server_name}]" if ":" in tls.server_name else tls.server_name
    if name and not rules.is_host(name):
        raise ValidationError(f"{tls.server_name!r} is no host name and no IP address. Give it without a port.")
    for name, text in (("authorities", tls.authorities), ("certificate", tls.certificate)):
        if text:
            _certificates(name, text)


def _certificates(name: str, text: str) -> None:
    """PEM certificates, and nothing else: a key among them would be shown to whoever may read the upstream."""
    if "PRIVATE KEY" in text:
        raise ValidationError(f"{name} holds a private key, which is given on its own.")
    try:
        found = _PEM.findall(text)
        if not found:
            raise ValueError("there is none")
        for one in found:
            ssl.PEM_cert_to_DER_cert(one)
    except ValueError as error:
        raise ValidationError(f"{name} is no PEM certificate: {error}.") from None


def _address(address: policies.Address) -> None:
    if why := refusal(address.host):
        raise ValidationError(why)


_DOCUMENTS: Final[dict[type, Callable[[Any], None]]] = {
    policies.Rewrite: _rewrite,
    policies.Redirect: _redirect,
    policies.HeaderEdits: _header_edits,
    policies.Mirror: _mirror,
    policies.Cors: _cors,
    policies.Retry: _retry,
    policies.Auth: _auth,
    policies.Sticky: _sticky,
    policies.Outlier: _outlier,
    policies.Tls: _tls,
    policies.Address: _address,
}
