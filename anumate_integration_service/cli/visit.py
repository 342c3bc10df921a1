"""What `doctor` collects before it judges: every answer it can get, and the refusals of those it cannot."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from anumate_integration_service.addresses import control_plane
from anumate_integration_service.cli.api import Api
from anumate_integration_service.cli.errors import USAGE, Failure

# Workers take a new table within a tenth of a second, and tell of it once a second.
SETTLING_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Refused:
    """What came instead of an answer."""

    sentence: str
    status: int = 0


@dataclass(slots=True)
class Visit:
    """Answers by name, each a body or a `Refused`; moments are UTC."""

    url: str
    gateway_url: str
    gateway_given: bool
    own_key: str
    now: datetime
    skew: float | None = None
    answers: dict[str, Any] = field(default_factory=dict)

    def body(self, name: str) -> Any:
        """The answer, or None where there is none."""
        answer = self.answers.get(name)
        return None if isinstance(answer, Refused) else answer

    def refusal(self, name: str) -> Refused | None:
        answer = self.answers.get(name)
        return answer if isinstance(answer, Refused) else None

    def outdated(self) -> list[int]:
        """The revisions of routing tables that are served, by worker, and are not the published one."""
        told, asked = (self.body("parts") or {}).get("routing_table"), self.body("gateway") or {}
        if not told:
            return []
        served = list(told["served"])
        if asked.get("status") == "ready" and asked["table_revision"] not in served:
            served.append(asked["table_revision"])  # of a worker that tells nothing, as one with another Redis does
        return [revision for revision in served if revision != told["published"]]

    def workers_at(self, revision: int) -> list[str]:
        """The names of the gateway's workers that serve this table, as far as the key may know them."""
        workers = (self.body("metrics") or {}).get("gateway", {}).get("workers", ())
        return [each["worker"] for each in workers if each["table_revision"] == revision]


def visit(api: Api, gateway: str = "") -> Visit:
    """Ask for everything; nothing is changed. `gateway` is its address, else the usual one.

    Raises:
        Failure: `gateway` is no address.
    """
    seen = Visit(api.url, _gateway(api.url, gateway), bool(gateway), _public_id(api.key), datetime.now(UTC))
    _look(api, seen, "ready", "/readyz")
    _look(api, seen, "gateway", f"{seen.gateway_url}/-/readyz")
    if seen.refusal("ready"):
        return seen
    _look(api, seen, "parts", "/health")
    if seen.outdated():
        time.sleep(SETTLING_SECONDS)  # somebody may have edited just now
        _look(api, seen, "parts", "/health")
        _look(api, seen, "gateway", f"{seen.gateway_url}/-/readyz")
    if seen.outdated():
        _ask(seen, "metrics", lambda: api.get("/v1/metrics"))
    _ask(seen, "services", lambda: api.get("/v1/services", status="any"))
    _ask(seen, "eligible", lambda: api.get("/v1/services"))
    _ask(seen, "health", lambda: api.get("/v1/health/status"))
    _ask(seen, "breakers", lambda: api.get_all("/v1/circuit-breakers"))
    _ask(seen, "routes", lambda: api.get_all("/v1/routes"))
    _ask(seen, "keys", lambda: api.get_all("/v1/api-keys", revoked="false"))
    return seen


def _look(api: Api, seen: Visit, name: str, url: str) -> None:
    try:
        before = time.time()
        response = api.look(url)
        if name == "ready":
            seen.skew = _skew(response.headers.get("date", ""), before, time.time())
        body = response.json()
        seen.answers[name] = body if isinstance(body, dict) else Refused("Something else answers there.")
    except Failure as failure:
        seen.answers[name] = Refused(str(failure), failure.status)
    except ValueError:
        seen.answers[name] = Refused(f"{url} does not answer like Anumate.")


def _ask(seen: Visit, name: str, question: Any) -> None:
    try:
        seen.answers[name] = question()
    except Failure as failure:
        seen.answers[name] = Refused(str(failure), failure.status)
    except (LookupError, TypeError):
        seen.answers[name] = Refused("It gives an answer that this version does not know.")


def _skew(date: str, before: float, after: float) -> float | None:
    """Seconds that the other clock is ahead; the header's whole seconds and the way are not held against it."""
    try:
        said = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None
    if said > after:
        return said - after
    return min(0.0, said + 1 - before)


def _gateway(url: str, gateway: str) -> str:
    if gateway:
        try:
            return control_plane(gateway)
        except ValueError:
            raise Failure(
                f"{gateway!r} is no address of a gateway (--gateway or ANUMATE_GATEWAY_URL).", USAGE
            ) from None
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{os.environ.get('GATEWAY_PORT') or 8080}"


def _public_id(key: str) -> str:
    parts = key.split("_")
    return parts[1] if len(parts) == 4 else ""
