"""The REST API as commands use it: an answer, or a `Failure` that says what to do."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from anumate_integration_service.addresses import control_plane
from anumate_integration_service.cli.errors import NOT_ALLOWED, UNREACHABLE, USAGE, Failure

TIMEOUT = 10.0


class Api:
    """One conversation with the control plane."""

    def __init__(self, url: str, api_key: str, tenant: str, *, timeout: float = TIMEOUT) -> None:
        try:
            self.url = control_plane(url)
        except ValueError as error:
            raise Failure(f"{error} (--url or ANUMATE_URL).", USAGE) from None
        headers = {"Accept": "application/json"}
        self.key = api_key or (_kept_key() if _is_this_machine(self.url) else "")
        if self.key:
            headers["X-API-Key"] = _plain(self.key, "--api-key")
        if tenant:
            headers["X-Tenant"] = _plain(tenant, "--tenant")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._send("GET", path, params=_given(query))

    def wait(self, path: str, seconds: float, **query: Any) -> Any:
        """A blocking query: the answer once something has changed, or after `seconds`."""
        return self._send("GET", path, params=_given(query) | {"wait": f"{seconds:g}s"}, timeout=seconds + TIMEOUT)

    def look(self, url: str) -> httpx.Response:
        """Whatever stands there, whether it is a refusal or not; without key when it is not the control plane."""
        own = url.startswith("/")
        try:
            return self._http.get(url) if own else httpx.get(url, timeout=self._http.timeout)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Failure(f"{self.url if own else url} cannot be reached ({error})", UNREACHABLE) from None

    def get_all(self, path: str, **query: Any) -> Any:
        """All pages of a list as one answer. By number, because `next` names the host that a proxy may have made up."""
        answer = page = self.get(path, **query)
        number = 1
        while page["next"] and page["results"]:
            number += 1
            page = self.get(path, page=number, **query)
            answer = {**answer, "next": None, "results": [*answer["results"], *page["results"]]}
        return answer

    def post(self, path: str, body: Any = None) -> Any:
        return self._send("POST", path, json=body)

    def get_text(self, path: str, media_type: str) -> str:
        """An answer that is not JSON, as it came."""
        return self._ask("GET", path, headers={"Accept": media_type}).text

    def post_text(self, path: str, content: bytes, media_type: str, *, about: str) -> Any:
        """Send a file; a refusal that names a line of it names the file `about` too."""
        return self._send("POST", path, content=content, headers={"Content-Type": media_type}, about=about)

    def patch(self, path: str, body: Any) -> Any:
        return self._send("PATCH", path, json=body)

    def put(self, path: str, body: Any = None) -> Any:
        return self._send("PUT", path, json=body)

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        response = self._ask(method, path, **options)
        if not response.content:
            return None
        try:
            return response.json()
        except json.JSONDecodeError:
            raise Failure(f"{self.url} does not answer like Anumate's control plane; see --url.") from None

    def _ask(self, method: str, path: str, *, about: str = "", **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Failure(f"{self.url} cannot be reached ({error}); is it running? See --url.", UNREACHABLE) from None
        if not response.is_success:
            refused = response.status_code in (401, 403)
            raise Failure(_sentence(response, about), *((NOT_ALLOWED,) if refused else ()))
        return response


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value}


def _plain(value: str, option: str) -> str:
    """A header's value; anything else would be refused in words that do not say which option is meant."""
    if not (value.isascii() and value.isprintable()):
        raise Failure(f"{option} has characters that no key and no tenant has.", USAGE)
    return value


def _is_this_machine(url: str) -> bool:
    """The key of the first start is this machine's own: another one is shown it only by whoever says so."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _kept_key() -> str:
    """The key that the first start left in the state directory."""
    path = Path(os.environ.get("ANUMATE_HOME") or ".anumate") / "api-key"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _sentence(response: httpx.Response, about: str = "") -> str:
    try:
        problem = response.json()
        faults = [f"{_place(error, about)}{error['pointer']}: {error['detail']}" for error in problem.get("errors", ())]
        return f"{'; '.join(faults) or problem['detail']} ({problem['code']})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{response.request.url} answered {response.status_code} {response.reason_phrase}."


def _place(error: dict[str, Any], about: str) -> str:
    return f"{about}, line {error['line']}, " if about and "line" in error else ""
