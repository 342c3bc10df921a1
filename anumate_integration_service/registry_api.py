"""The registry's HTTP interface, as far as the discovery client needs it. Foreign errors are translated here, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from anumate_integration_service.addresses import control_plane
from anumate_integration_service.errors import LeaseUnknown, RegistrationRefused, RegistryUnavailable
from anumate_integration_service.instances import ServiceInstance

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

TIMEOUT = 5.0
# How long a connection is kept without a request. A server often closes it after 5 s, as uvicorn does, and counts from
# earlier than a client can; no request should meet that.
IDLE = 4.0
# What may pass between the end of a blocking query's wait and its answer.
ANSWER_MARGIN = 10.0
# What reading an answer raises that is not as the registry gives it; a number too large for a float included.
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


class Lease(NamedTuple):
    """How long the registry keeps an instance without a word, and how often it wants one."""

    ttl: float
    heartbeat_interval: float


@dataclass(frozen=True, slots=True)
class Listing:
    index: str
    instances: tuple[ServiceInstance, ...]


class RegistryApi:
    """Each call answers, or raises one of `errors`.

    Connections are made when they are first needed, so that making a client costs nothing and a process may fork before
    it begins; after `close`, the next call makes new ones.
    """

    def __init__(self, url: str, api_key: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = control_plane(url)
        self.api_key = api_key
        self._transport = transport
        self._http: httpx.AsyncClient | None = None

    async def register(self, document: Mapping[str, Any]) -> Lease:
        return await self._send("POST", "/v1/services/register", _lease, json=document)

    async def heartbeat(self, name: str, instance_id: str, report: Mapping[str, str]) -> None:
        path = f"{_address(name, instance_id)}/heartbeat"
        await self._send("PUT", path, _nothing, json=report or None, missing=LeaseUnknown)

    async def deregister(self, name: str, instance_id: str) -> None:
        await self._send("DELETE", _address(name, instance_id), _nothing, missing=LeaseUnknown)

    async def services(self, index: str = "", wait: float = 0.0) -> Listing:
        """Every instance that may get traffic. With `index`: once that is no longer the newest, or after `wait`."""
        query = {"index": index, "wait": f"{wait:g}s"} if index else {}
        timeout = TIMEOUT + wait + ANSWER_MARGIN
        return await self._send("GET", "/v1/services", _listing, params=query, timeout=timeout)

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def after_fork(self) -> object:
        """In the child: forget the parent's connections. Answers them, to be kept unused: to close them here would
        write into what the parent is using."""
        http, self._http = self._http, None
        return http

    def _connections(self) -> httpx.AsyncClient:
        import httpx  # here, as it takes longer to load than everything else together

        if self._http is None:
            headers = {"X-API-Key": self.api_key} if self.api_key else {}
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=headers,
                timeout=TIMEOUT,
                limits=httpx.Limits(keepalive_expiry=IDLE),
                transport=self._transport,
            )
        return self._http

    async def _send(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        *,
        missing: type[LeaseUnknown] | None = None,
        **options: Any,
    ) -> T:
        import httpx

        try:
            try:
                response = await self._connections().request(method, path, **options)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # Most likely a kept connection that the registry was just closing. Every call here may be repeated.
                response = await self._connections().request(method, path, **options)
        except (httpx.RequestError, ValueError) as error:
            raise RegistryUnavailable(f"{self.url} cannot be reached: {error or type(error).__name__}") from error
        if response.is_success:
            return self._read(response, read)
        sentence, code = _problem(response)
        if response.status_code == 404 and missing is not None:
            raise missing(sentence)
        if response.status_code == 429 or response.status_code >= 500:
            raise RegistryUnavailable(sentence, _retry_after(response))
        raise RegistrationRefused(sentence, status=response.status_code, code=code)

    def _read(self, response: httpx.Response, read: Callable[[Any], T]) -> T:
        """An odd answer is an outage: a proxy in between, a registry half up. Trying again may help."""
        try:
            return read(response.json() if response.content else {})
        except _MALFORMED as error:
            sentence = f"{self.url} does not answer like a registry: {type(error).__name__}: {error}"
            raise RegistryUnavailable(sentence) from error


def load() -> None:
    """Import now what the first request would. A child forked while a thread imports could never import the same."""
    for module in ("anyio._backends._asyncio", "encodings.idna"):
        with suppress(ImportError):
            import_module(module)
    import httpx

    httpx.AsyncClient()  # imports the rest of what it needs only as one is made


def _nothing(answer: Any) -> None:
    """For answers of which only the status counts."""


def _lease(answer: Any) -> Lease:
    ttl = float(answer["lease_ttl"])
    lease = Lease(ttl, float(answer.get("heartbeat_interval") or ttl / 3))
    if not all(math.isfinite(seconds) and seconds > 0 for seconds in lease):
        raise ValueError(f"a lease of {ttl:g} s")
    return lease


def _listing(answer: Any) -> Listing:
    if not isinstance(answer["index"], str):
        raise TypeError("the index is no text")
    return Listing(answer["index"], tuple(ServiceInstance.from_json(item) for item in answer["services"]))


def _address(name: str, instance_id: str) -> str:
    return f"/v1/services/{quote(name, safe='')}/{quote(instance_id, safe='')}"


def _problem(response: httpx.Response) -> tuple[str, str]:
    """The sentence and code of a problem+json answer; something sensible for any other."""
    try:
        body = response.json()
        faults = [f"{error['pointer']}: {error['detail']}" for error in body.get("errors", ())]
        return "; ".join(faults) or str(body["detail"]), str(body["code"])
    except _MALFORMED:
        return f"{response.request.url} answered {response.status_code}.", ""


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None
