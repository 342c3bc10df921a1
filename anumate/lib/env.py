"""The one reader of the environment: every variable with its type, default and meaning.

`read()` answers a frozen `Env` or raises `EnvError`, whose text is one line that names the variable, its value and what
is accepted. A variable may also be given as `NAME_FILE`, the path of a file that holds it, as Docker and Kubernetes
hand out secrets.
`python -m anumate.lib.env` prints `.env.example`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
DATABASE_SCHEMES = ("sqlite", "postgres", "postgresql")

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class EnvError(Exception):
    """A variable's value is not accepted, or a needed one is missing."""


@dataclass(frozen=True)
class Rule:
    """How a variable's text becomes a value. `parse` raises ValueError on what is not `accepted`."""

    parse: Callable[[str], Any]
    accepted: str


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError


def _whole(low: int, high: int) -> Rule:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return Rule(parse, f"a whole number from {low} to {high}")


def _number(low: float, high: float) -> Rule:
    def parse(text: str) -> float:
        number = float(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return Rule(parse, f"a number from {low:g} to {high:g}")


def _one_of(*values: str) -> Rule:
    def parse(text: str) -> str:
        if text.lower() not in values:
            raise ValueError
        return text.lower()

    return Rule(parse, "one of " + ", ".join(values))


class Wanted(ValueError):
    """Its text says what this part of a value takes, where the rule as a whole would mislead."""


def _redis(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError
    if parts.scheme == "unix":
        if not parts.path:
            raise Wanted("the path of a socket after unix://")
        return text
    for place in _places(parts).split(","):
        _place(place, parts.scheme)
    return text


def _database(text: str) -> str:
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in DATABASE_SCHEMES or not text.lower().startswith(f"{parts.scheme}://"):
        raise ValueError
    if parts.scheme == "sqlite":
        if parts.netloc or ":memory:" in parts.path:
            raise Wanted("a file's whole path after sqlite://, as in sqlite:///var/lib/anumate.sqlite3")
        return text
    if "service" in options:
        return text
    if not options.get("host"):
        _place(_places(parts), parts.scheme)
    if not parts.path.strip("/"):
        raise Wanted(f"the database's name after the host, as in {parts.scheme}://user:password@host:5432/name")
    return text


def _places(parts: SplitResult) -> str:
    if "@" in parts.path + parts.query + parts.fragment and "@" not in parts.netloc:
        raise Wanted("a password in which / is written %2F, ? %3F and # %23")
    return parts.netloc.rpartition("@")[2]


def _place(text: str, scheme: str) -> None:
    """Raises Wanted when this is no `host` or `host:port`."""
    host, port = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if not host.strip("[]"):
        raise Wanted(f"a host after {scheme}://")
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise Wanted("a port from 1 to 65535 after the host")


def _starting(*schemes: str) -> str:
    return "an address that starts with " + ", ".join(f"{scheme}://" for scheme in schemes)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", text.strip()) if word)


def _networks(text: str) -> Networks:
    return tuple(ipaddress.ip_network(word, strict=False) for word in _words(text))


TEXT = Rule(str, "any text")
WORDS = Rule(_words, "names separated by commas")
BOOLEAN = Rule(_boolean, "true or false")
NETWORKS = Rule(_networks, "networks like 10.0.0.0/8, separated by commas")
REDIS = Rule(_redis, _starting(*REDIS_SCHEMES))
DATABASE = Rule(_database, _starting(*DATABASE_SCHEMES))


def var(name: str, rule: Rule, default: Any, about: str, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"name": name, "rule": rule, "about": about, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Env:
    """What the environment says. Empty text means: not set."""

    home: Path = var("ANUMATE_HOME", Rule(Path, "a directory"), Path(".anumate"), "State directory: data, logs, keys.")
    redis_url: str = var("REDIS_URL", REDIS, "", "Redis or Valkey. Unset: an embedded Valkey is started.")
    registry_wait_replicas: int = var(
        "REGISTRY_WAIT_REPLICAS",
        _whole(0, 100),
        0,
        "Replicas that must have a registration before it is acknowledged, else 503; 0 waits for none.",
    )
    database_url: str = var("DATABASE_URL", DATABASE, "", "Database. Unset: SQLite in the state directory.")
    celery_broker_url: str = var("CELERY_BROKER_URL", REDIS, "", "Celery's broker. Unset: REDIS_URL.")
    channels_redis_url: str = var("CHANNELS_REDIS_URL", REDIS, "", "Channels' layer. Unset: REDIS_URL.")
    cache_url: str = var("CACHE_URL", REDIS, "", "Django's cache and sessions. Unset: REDIS_URL.")
    secret_key: str = var(
        "SECRET_KEY", TEXT, "", "Django's signing key. Unset: made once, kept in the state directory.", secret=True
    )
    api_key_pepper: str = var(
        "API_KEY_PEPPER",
        TEXT,
        "",
        "Mixed into every key's hash. Unset: made once, kept in the state directory.",
        secret=True,
    )
    allowed_hosts: tuple[str, ...] = var(
        "ALLOWED_HOSTS", WORDS, ("localhost", "127.0.0.1", "[::1]"), "Host names the control plane answers to."
    )
    csrf_trusted_origins: tuple[str, ...] = var(
        "CSRF_TRUSTED_ORIGINS", WORDS, (), "Origins that may post forms, when behind a proxy that ends TLS."
    )
    https_only: bool = var(
        "HTTPS_ONLY", BOOLEAN, False, "The control plane stands behind TLS: secure cookies, HSTS, redirects."
    )
    log_level: str = var("LOG_LEVEL", _one_of(*LOG_LEVELS), "info", "How much is logged.")
    gateway_enabled: bool = var("GATEWAY_ENABLED", BOOLEAN, True, "Start the gateway.")
    health_manager_enabled: bool = var("HEALTH_MANAGER_ENABLED", BOOLEAN, True, "Run health checks.")
    gateway_port: int = var("GATEWAY_PORT", _whole(1, 65535), 8080, "The gateway's port.")
    gateway_drain_seconds: float = var(
        "GATEWAY_DRAIN_SECONDS",
        _number(0, 86_400),
        30.0,
        "Seconds for which a gateway worker that is told to stop answers what is under way; then it is cut off.",
    )
    cors_origins: tuple[str, ...] = var(
        "CORS_ORIGINS", WORDS, (), "Origins that browsers may call from, on both ports; * for any."
    )
    default_rate_limit: int = var(
        "DEFAULT_RATE_LIMIT",
        _whole(0, 10_000_000),
        1000,
        "Tokens a second and burst for each key, where a route has no policy; 0 is none.",
    )
    circuit_breaker_failure_threshold: int = var(
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        _whole(1, 1_000_000),
        5,
        "Consecutive failures that open a breaker without a policy.",
    )
    gateway_tls_certificate: str = var(
        "GATEWAY_TLS_CERTIFICATE", TEXT, "", "PEM file of the gateway's certificate chain; with it, it serves HTTPS."
    )
    gateway_tls_key: str = var("GATEWAY_TLS_KEY", TEXT, "", "PEM file of the private key to it.")
    gateway_tls_client_authorities: str = var(
        "GATEWAY_TLS_CLIENT_AUTHORITIES", TEXT, "", "PEM file of authorities; with it, clients must show a certificate."
    )
    gateway_zone: str = var(
        "GATEWAY_ZONE", TEXT, "", "Zone that the gateway runs in, for services that prefer instances nearby."
    )
    gateway_max_concurrent: int = var(
        "GATEWAY_MAX_CONCURRENT",
        _whole(0, 1_000_000),
        10_000,
        "Requests in flight at once in one gateway worker, beyond which it answers 503; 0 is no limit.",
    )
    gateway_max_connections: int = var(
        "GATEWAY_MAX_CONNECTIONS",
        _whole(0, 1_000_000),
        10_000,
        "Connections of clients that one gateway worker holds open, beyond which a new one is told 503 and closed; "
        "0 is no limit but that of open files.",
    )
    gateway_max_url_bytes: int = var(
        "GATEWAY_MAX_URL_BYTES",
        _whole(1024, 65_536),
        8192,
        "Bytes of a request's target that the gateway takes; a longer one gets 414.",
    )
    gateway_max_header_bytes: int = var(
        "GATEWAY_MAX_HEADER_BYTES",
        _whole(8192, 1_048_576),
        32_768,
        "Bytes of a request's header fields together that the gateway takes; more get 431.",
    )
    gateway_max_headers: int = var(
        "GATEWAY_MAX_HEADERS",
        _whole(10, 10_000),
        100,
        "Header fields of a request that the gateway takes; more get 431.",
    )
    gateway_head_seconds: float = var(
        "GATEWAY_HEAD_SECONDS",
        _number(1, 600),
        10.0,
        "Seconds that a request's head may take to come to the gateway, then 408; and a TLS handshake.",
    )
    circuit_breaker_recovery_timeout: float = var(
        "CIRCUIT_BREAKER_RECOVERY_TIMEOUT", _number(0.1, 86_400), 60.0, "Seconds a breaker without a policy stays open."
    )
    api_key_required: bool = var(
        "API_KEY_REQUIRED", BOOLEAN, True, "false lets a request without a key read and invoke in tenant default."
    )
    trusted_proxies: Networks = var(
        "TRUSTED_PROXIES", NETWORKS, (), "Proxies whose X-Forwarded-* headers are believed."
    )
    admin_username: str = var("ANUMATE_ADMIN_USERNAME", TEXT, "admin", "The first administrator's name.")
    admin_password: str = var(
        "ANUMATE_ADMIN_PASSWORD", TEXT, "", "Its first password. Unset: random, printed once.", secret=True
    )
    bootstrap_api_key: str = var(
        "ANUMATE_BOOTSTRAP_API_KEY",
        TEXT,
        "",
        "The first API key, well-formed. Unset: random, printed once.",
        secret=True,
    )
    debug: bool = var("DEBUG", BOOLEAN, False, "Django's debug pages. Never in production.")


def read(environ: Mapping[str, str] | None = None) -> Env:
    """The environment as typed values.

    Raises:
        EnvError: the first variable whose value is not accepted, as one line.
    """
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for each in fields(Env):
        name, rule = each.metadata["name"], each.metadata["rule"]
        text = _text(source, name)
        if text is None or text == "":
            continue
        try:
            values[each.name] = rule.parse(text)
        except ValueError as error:
            accepted = str(error) if isinstance(error, Wanted) else rule.accepted
            raise EnvError(not_accepted(name, text, accepted, secret=each.metadata["secret"])) from None
    return Env(**values)


def _text(source: Mapping[str, str], name: str) -> str | None:
    path = source.get(f"{name}_FILE")
    if name in source or not path:
        return source.get(name)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvError(f"{name}_FILE={path!r} cannot be read: {error}.") from None


def not_accepted(name: str, text: str, accepted: str, *, secret: bool = False) -> str:
    """The one line for a value that is none."""
    shown = "(hidden)" if secret else repr(without_password(text))
    return f"{name}={shown} is not accepted: it takes {accepted}."


def without_password(url: str) -> str:
    """An address as it may be shown. A password may hold any character, even those that ought to be encoded."""
    shown = re.sub(r"^((?:[^:/]*://)?[^:/@]*:).+(?=@)", r"\1***", url)
    return re.sub(r"(?<=password=)[^&#]+", "***", shown)


def example() -> str:
    """The text of `.env.example`: every variable with its meaning and default."""
    blocks = ["# Every variable the platform reads. All are optional; what stands here is the default."]
    for each in fields(Env):
        meta, default = each.metadata, each.default
        if isinstance(default, bool):
            shown = str(default).lower()
        elif isinstance(default, tuple):
            shown = ",".join(str(item) for item in default)
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
        blocks.append(f"# {meta['about']} Takes {meta['rule'].accepted}.\n#{meta['name']}={shown}")
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    sys.stdout.write(example())
