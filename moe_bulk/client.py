"""Exactly one attempt: record → outcome. Owns the httpx client; trouble of the network is an outcome, no exception.

httpx is what users see and may replace; beneath it httpx-aiohttp's transport carries the bytes, because one shared
httpx pool scans all its connections for every request (encode/httpcore#1035). It never sends a POST twice by itself:
pinned by `tests/test_client.py`.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio
import certifi
import httpx
from httpx_aiohttp import AiohttpTransport

from moe_bulk import wire
from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from moe_bulk.config import Credentials
    from moe_bulk.outcome import Outcome
    from moe_bulk.record import Record

IDLE_SECONDS = 15.0
"""How long an unused connection is kept: shorter than any server or load balancer waits before it closes one."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: closing throws away what was not sent yet, so that nothing arrives after it was given up."""

_connection: ContextVar[list[asyncio.BaseTransport]] = ContextVar("_connection")


class _Connector(aiohttp.TCPConnector):
    """Tells the attempt which connection carries it, so that giving up can abort it."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: Sequence[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the connector's own signature
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, list(traces), timeout)
        held = _connection.get(None)
        if held is not None and connection.transport is not None:
            held.append(connection.transport)
        return connection


def tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """One verifying context for all connections: building one costs 30 ms. Verification cannot be switched off."""
    try:
        return ssl.create_default_context(cafile=ca_bundle or certifi.where())
    except OSError as error:
        raise ConfigError(f"the CA bundle {ca_bundle} cannot be read ({error.strerror or error})") from None


def environment_proxy(url: str) -> httpx.Proxy | None:
    """The proxy that the environment (`HTTPS_PROXY`, `NO_PROXY`) asks for on the way to `url`, or None.

    Only https goes through a proxy, by CONNECT, so that no proxy reads the key; plain http goes to loopback directly.
    """
    parts = urlsplit(url)
    proxy = getproxies().get("https") or getproxies().get("all")
    if parts.scheme != "https" or not proxy or proxy_bypass(parts.hostname or ""):
        return None
    try:
        found = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")
    except (ValueError, httpx.InvalidURL):
        raise ConfigError(
            "the proxy in HTTPS_PROXY is no usable URL: write it like http://proxy.example:3128"
        ) from None
    if found.url.scheme != "http":
        raise ConfigError(
            f"the proxy in HTTPS_PROXY speaks {found.url.scheme}, which is not supported: use an http:// proxy "
            "(the connection to MoEngage stays encrypted inside it)"
        )
    return found


def default_transport(url: str, ca_bundle: str | None = None) -> AiohttpTransport:
    """The transport that carries the bytes where the caller brings none; open it inside a running event loop."""
    context = tls_context(ca_bundle)

    def session() -> aiohttp.ClientSession:
        # No limit here: a request must never queue behind a slot that was already taken. Names are looked up again
        # after ten seconds (aiohttp's default), for runs of days.
        connector = _Connector(limit=0, ssl=context, keepalive_timeout=IDLE_SECONDS)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    return AiohttpTransport(verify=context, client=session, proxy=environment_proxy(url))


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class Client:
    """Makes attempts for one workspace; enter it before the first and leave it after the last.

    `transport` or `http` (an `httpx.AsyncClient`) are the caller's own, in place of ours, and are not closed. `timeout`
    is seconds for one attempt in all, connecting included. `epoch` gives epoch seconds, for dates in answers.
    """

    def __init__(
        self,
        credentials: Credentials,
        timeout: float,
        epoch: Callable[[], float],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        http: httpx.AsyncClient | None = None,
        ca_bundle: str | None = None,
        user_agent: str = "moe-bulk",
    ) -> None:
        self._secret = credentials.api_key
        self._timeout = timeout
        self._epoch = epoch
        self._url = httpx.URL(credentials.base_url + wire.device_path(credentials.workspace_id))
        self._headers = httpx.Headers(wire.headers(credentials.workspace_id, credentials.api_key, user_agent))
        self._transport = transport
        self._http = http
        self._ca_bundle = ca_bundle
        self._owned: httpx.AsyncClient | None = None
        self._own_transport: httpx.AsyncBaseTransport | None = None

    async def __aenter__(self) -> Self:
        if self._http is None:
            if self._transport is None:
                self._own_transport = self._transport = default_transport(str(self._url), self._ca_bundle)
            # The client is ours but never entered: leaving it would close a transport that may be the caller's.
            self._http = httpx.AsyncClient(
                transport=self._transport,
                cookies=_no_cookies(),
                trust_env=False,
                timeout=httpx.Timeout(None),  # `attempt` has one for all of it
                follow_redirects=False,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._own_transport is not None:
            with anyio.CancelScope(shield=True):
                await self._own_transport.aclose()

    async def attempt(self, record: Record) -> Outcome:
        """Send the record once and judge what comes back; whatever goes wrong on the way is an outcome, too.

        Cancelling it, or its timeout, aborts the connection: what was not sent yet never will be.
        """
        held: list[asyncio.BaseTransport] = []
        token = _connection.set(held)
        outcome = wire.trouble("timeout", f"no answer within {self._timeout:g} s")
        answered = False
        try:
            with anyio.move_on_after(self._timeout):
                outcome = await self._exchange(record)
                answered = outcome.http_status is not None
            return outcome
        finally:
            _connection.reset(token)
            if not answered:
                _abort(held)

    async def _exchange(self, record: Record) -> Outcome:
        request = self._request(record)
        try:
            assert self._http is not None, "enter the client before the first attempt"  # noqa: S101
            response = await self._http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                body = await _read(response)
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
            return wire.judge(response.status_code, response.headers, body, now=self._epoch(), secret=self._secret)
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError) as error:
            # Not chained and not raised: exceptions of the HTTP stack hold the request, and with it the key.
            return wire.trouble(_name(error), wire.clean(f"{type(error).__name__}: {error}", self._secret))

    def _request(self, record: Record) -> httpx.Request:
        headers = self._headers
        if record.device.forwarded_for:
            headers = headers.copy()
            headers["X-Forwarded-For"] = record.device.forwarded_for
        return httpx.Request("POST", self._url, headers=headers, content=wire.encode(record.device))


async def _read(response: httpx.Response) -> bytes:
    """At most `ANSWER_KEPT` bytes of the answer, decoded; the rest of a longer one is not read."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= wire.ANSWER_KEPT:
            break
    return wire.decode_body(bytes(body[: wire.ANSWER_KEPT]), response.headers.get("content-encoding", ""))


def _abort(held: list[asyncio.BaseTransport]) -> None:
    for transport in held:
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()  # type: ignore[attr-defined]  # a BaseTransport by name, always a Transport


def _name(error: Exception) -> str:
    """What went wrong, in words that stay the same whichever library said it."""
    cause: BaseException | None = error
    while cause is not None:
        for kind, name in _NAMES:
            if isinstance(cause, kind):
                return name
        cause = cause.__cause__
    return (
        "connection lost"
        if isinstance(error, (httpx.TransportError, aiohttp.ClientError, OSError))
        else "broken answer"
    )


_NAMES: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "certificate refused"),
    (ssl.SSLError, "TLS failure"),
    (socket.gaierror, "name not resolved"),
    (ConnectionRefusedError, "connection refused"),
    (aiohttp.ClientPayloadError, "broken answer"),
    (aiohttp.ClientResponseError, "broken answer"),
    (aiohttp.ServerDisconnectedError, "connection lost"),
    (httpx.RemoteProtocolError, "broken answer"),
    (httpx.ProxyError, "proxy failure"),
    (httpx.TimeoutException, "connection lost"),
)
