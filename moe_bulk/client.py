"""Exactly one attempt: record → outcome. Owns the httpx client; trouble of the network is an outcome, no exception.

httpx is what users see and may replace; beneath it httpx-aiohttp's transport carries the bytes, because one shared
httpx pool scans all its connections for every request (encode/httpcore#1035). It never sends a POST twice by itself:
pinned by `tests/test_client_transport.py`.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
from contextlib import aclosing
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
import anyio
import certifi
import httpx
from httpx_aiohttp import AiohttpTransport

from moe_bulk import wire
from moe_bulk.config import Secret
from moe_bulk.errors import ConfigError
from moe_bulk.trouble import judge_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from types import TracebackType

    from moe_bulk.config import Credentials
    from moe_bulk.outcome import Outcome
    from moe_bulk.record import Record

IDLE_SECONDS = 15.0
"""How long an unused connection is kept: shorter than any server or load balancer waits before it closes one."""

CLOSE_SECONDS = 1.0
"""How long an answer that is not read to its end may take to be closed; ours takes no time, a caller's may."""

NO_TIMEOUT = httpx.Timeout(None).as_dict()
"""`Client.attempt` has one timeout for all of it; the caller's httpx client must not add its own five seconds."""


def _linger(*, on: bool) -> bytes:
    """SO_LINGER of 0 s: closing throws away what was not sent yet, so that nothing arrives after it was given up."""
    return struct.pack("ii", int(on), 0)


# --- the connections -------------------------------------------------------------------------------------------------


class _Held(NamedTuple):
    """The connection that carries an attempt."""

    connection: aiohttp.connector.Connection
    transport: asyncio.Transport

    def abort(self) -> None:
        """Reset it, unless it was given back in good order: then it may already carry another attempt."""
        if self.connection.transport is not None or self.transport.is_closing():
            self.transport.abort()


_held: ContextVar[list[_Held]] = ContextVar("_held")


class _Connector(aiohttp.TCPConnector):
    """Tells the attempt which connection carries it, so that giving up can abort it, and lets no socket linger."""

    def __init__(self, context: ssl.SSLContext) -> None:
        # No limit here: a request must never queue behind a slot that was already taken. Names are looked up again
        # after ten seconds (aiohttp's default), for runs of days.
        super().__init__(limit=0, ssl=context, keepalive_timeout=IDLE_SECONDS, socket_factory=self._open)
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def _open(self, address: tuple[Any, ...]) -> socket.socket:
        opened = socket.socket(*address[:3])
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _linger(on=True))
        self._sockets.add(opened)
        return opened

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: Sequence[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the connector's own signature
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, list(traces), timeout)
        if anyio.current_time() > anyio.current_effective_deadline():
            # The process stood still on the way here. Nothing is sent behind the timeout: its slot may have passed.
            connection.close()
            raise TimeoutError
        if connection.transport is None or connection.protocol is None or connection.protocol.should_close:
            # aiohttp would take what came in meanwhile for the answer to this request.
            connection.close()
            raise aiohttp.ClientConnectionError("the server closed the connection, or spoke before it was asked")
        _held.get([]).append(_Held(connection, connection.transport))
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        # What is idle at the end closes in the orderly way; what was aborted a moment ago is gone after one turn.
        await asyncio.sleep(0)
        for opened in self._sockets:
            if opened.fileno() >= 0:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _linger(on=False))
        await super().close(abort_ssl=abort_ssl)


class _Response(aiohttp.ClientResponse):
    """An answer without the words behind its status: httpx-aiohttp fails on those that are not UTF-8."""

    async def start(self, connection: aiohttp.connector.Connection) -> Self:
        await super().start(connection)
        self.reason = ""
        return self


class _Discreet(httpx.AsyncBaseTransport):
    """Leaves out the words behind an answer's status: they are a stranger's, and httpx logs them as they are."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        response.extensions.pop("reason_phrase", None)
        return response


def tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """One verifying context for all connections: building one costs 30 ms. Verification cannot be switched off."""
    bundle = ca_bundle or certifi.where()
    try:
        return ssl.create_default_context(cafile=bundle)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the CA bundle {bundle!r} cannot be read as certificates in PEM form ({reason})") from None


# --- the proxy -------------------------------------------------------------------------------------------------------


class Proxy(httpx.Proxy):
    """A proxy that is asked to CONNECT; its password travels in a header to it and shows nowhere."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.password = Secret("")
        if self.auth is not None:
            user, password = self.auth
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            # As a header of ours and not as `auth`: aiohttp warns of its own way, and shows it in its errors.
            self.headers["Proxy-Authorization"] = f"Basic {token}"
            self.password = Secret(password)
            self.auth = None

    def __repr__(self) -> str:
        return f"Proxy({str(self.url)!r})"


def environment_proxy(url: str) -> Proxy | None:
    """The proxy that the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) asks for on the way to `url`, or None.

    Only https goes through a proxy, by CONNECT, so that no proxy reads the key; plain http goes to loopback directly.
    """
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if parts.scheme != "https" or not proxy or any(map(proxy_bypass, (parts.netloc, parts.hostname or ""))):
        return None
    try:
        found = Proxy(proxy if "://" in proxy else f"http://{proxy}")
    except (ValueError, httpx.InvalidURL):
        found = None
    if found is None or not found.url.host:
        raise ConfigError("the proxy in HTTPS_PROXY is no usable URL: write it like http://proxy.example:3128")
    if found.url.scheme != "http":
        raise ConfigError(
            f"the proxy in HTTPS_PROXY speaks {found.url.scheme}, which is not supported: use an http:// proxy "
            "(the connection to MoEngage stays encrypted inside it)"
        )
    return found


# --- the client ------------------------------------------------------------------------------------------------------


class Answer:
    """What has come of an answer so far, and over which connection: an attempt may end in the midst of it."""

    response: httpx.Response | None = None
    body = b""
    whole = False

    def __init__(self) -> None:
        self.held: list[_Held] = []

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The server's, as `ssl.SSLSocket.getpeercert` gives it; empty where there is none, or no connection."""
        return next((held.transport.get_extra_info("peercert") or {} for held in reversed(self.held)), {})

    async def read(self, response: httpx.Response) -> None:
        """At most `ANSWER_KEPT` bytes, decoded; the rest of a longer answer is not read."""
        self.response = response
        if response.is_stream_consumed:  # the caller's transport or event hook has read it, httpx.MockTransport does
            self.body, self.whole = response.content[: wire.ANSWER_KEPT], True
            return
        raw = bytearray()
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
                async for chunk in chunks:
                    raw += chunk
                    if len(raw) >= wire.ANSWER_KEPT:
                        break
            self.whole = True
        finally:
            self.body = wire.decode_body(bytes(raw[: wire.ANSWER_KEPT]), response.headers.get("content-encoding", ""))
            if not response.is_closed:
                with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                    await response.aclose()

    def judged(self, epoch: float, secret: str) -> Outcome | None:
        """What it means, or None where too little of it came to tell.

        Only a whole answer accepts a record; for a refusal its head is enough, whatever becomes of the body.
        """
        if self.response is None or (self.response.is_success and not self.whole):
            return None
        return wire.judge(self.response.status_code, self.response.headers, self.body, now=epoch, secret=secret)


def default_transport(url: str, ca_bundle: str | None = None) -> AiohttpTransport:
    """The transport that carries the bytes where the caller brings none; open it inside a running event loop."""
    context = tls_context(ca_bundle)

    def session() -> aiohttp.ClientSession:
        connector, jar = _Connector(context), aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, response_class=_Response, trust_env=False)

    return AiohttpTransport(verify=context, client=session, proxy=environment_proxy(url))


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
        self._secrets = [Secret(credentials.api_key)]
        self._timeout = timeout
        self._epoch = epoch
        self._url = httpx.URL(credentials.base_url + wire.device_path(credentials.workspace_id))
        self._connection_test = httpx.URL(credentials.base_url + wire.CONNECTION_TEST_PATH)
        self._workspace_id = credentials.workspace_id
        self._headers = httpx.Headers(wire.headers(credentials.workspace_id, credentials.api_key, user_agent))
        self._transport = transport
        self._http = http
        self._ca_bundle = ca_bundle
        self._own_transport: AiohttpTransport | None = None

    async def __aenter__(self) -> Self:
        if self._http is None:
            # The client is ours but never entered: leaving it would close a transport that may be the caller's.
            self._http = httpx.AsyncClient(
                transport=_Discreet(self._transport or self._open_transport()),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                trust_env=False,
                follow_redirects=False,
            )
        return self

    def _open_transport(self) -> AiohttpTransport:
        self._own_transport = default_transport(str(self._url), self._ca_bundle)
        if isinstance(self._own_transport.proxy, Proxy):
            self._secrets.append(self._own_transport.proxy.password)
        return self._own_transport

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
        return await self._carry(lambda: self._request(record), Answer())

    async def try_connection(self, answer: Answer) -> Outcome:
        """Ask MoEngage once whether the key is right, with its Test connection; `answer` takes in what comes of it."""
        workspace_id, key = self._workspace_id, self._secrets[0].reveal()
        headers = {**self._headers, wire.WORKSPACE_HEADER: workspace_id}
        body = wire.encode_connection_test(workspace_id, key, self._url.host)
        return await self._carry(lambda: _post(self._connection_test, headers, body), answer)

    async def _carry(self, build: Callable[[], httpx.Request], answer: Answer) -> Outcome:
        token = _held.set(answer.held)
        missing = wire.trouble("timeout", f"timeout; no answer within {self._timeout:g} s")
        try:
            with anyio.move_on_after(self._timeout):
                missing = await self._exchange(build, answer) or missing
            return answer.judged(self._epoch(), self._secrets[0].reveal()) or missing
        finally:
            _held.reset(token)
            if not answer.whole:
                for carrier in answer.held:
                    carrier.abort()

    async def _exchange(self, build: Callable[[], httpx.Request], answer: Answer) -> Outcome | None:
        http, request = self._entered(), build()
        try:
            await answer.read(await http.send(request, stream=True, auth=None, follow_redirects=False))
        except Exception as error:  # noqa: BLE001  whatever a transport raises is trouble of this one attempt
            # Neither raised nor chained: exceptions of the HTTP stack hold the request, and with it the key.
            return judge_error(error, self._secrets)
        return None

    def _entered(self) -> httpx.AsyncClient:
        if self._http is None:
            raise RuntimeError("enter the client before the first attempt: async with Client(…) as client")
        if self._http.is_closed:
            raise RuntimeError("the httpx client that was handed in is closed: keep it open until the upload is over")
        return self._http

    def _request(self, record: Record) -> httpx.Request:
        headers = self._headers
        if record.device.forwarded_for:
            headers = headers.copy()
            headers["X-Forwarded-For"] = record.device.forwarded_for
        return _post(self._url, headers, wire.encode(record.device))


def _post(url: httpx.URL, headers: Mapping[str, str], body: bytes) -> httpx.Request:
    return httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": NO_TIMEOUT})
