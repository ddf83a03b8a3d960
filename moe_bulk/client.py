"""Exactly one attempt: record → outcome. Owns the connections; trouble of the network is an outcome, no exception.

httpx is what users see and may replace, by a transport or a client of their own. Where they do not, `posting` sends the
records over aiohttp's connections, because one shared httpx pool scans all its connections for every request
(encode/httpcore#1035); a Test connection goes over the same ones, through httpx-aiohttp's transport. Neither sends a
POST twice by itself: pinned by `tests/test_client_transport.py`.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from contextlib import aclosing
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import certifi
import httpx

from moe_bulk import wire
from moe_bulk.config import Secret
from moe_bulk.connections import Transport, UnderWay, connecting_for
from moe_bulk.deadlines import Deadlines
from moe_bulk.errors import ConfigError
from moe_bulk.posting import Fields, Poster
from moe_bulk.trouble import judge_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
    from types import TracebackType

    from moe_bulk.config import Credentials
    from moe_bulk.device import Device
    from moe_bulk.outcome import Outcome
    from moe_bulk.posting import Reply
    from moe_bulk.record import Record

CLOSE_SECONDS = 1.0
"""How long an answer that is not read to its end may take to be closed; ours takes no time, a caller's may."""

NO_TIMEOUT = httpx.Timeout(None).as_dict()
"""`Client.attempt` has one timeout for all of it; the caller's httpx client must not add its own five seconds."""


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


def _let_go_of_frames(error: BaseException | None) -> None:
    """Nobody shows where an error came from, and its frames know of it: so together they would be kept as garbage.

    What it was raised from has been ours, too; what only stood around it may be the application's.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__


class Answer:
    """What has come of an answer so far, and over which connection: an attempt may end in the midst of it."""

    status: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    body = b""
    whole = False
    under_way: UnderWay | None = None

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The server's, as `ssl.SSLSocket.getpeercert` gives it; empty where there is none, or no connection."""
        return self.under_way.certificate if self.under_way is not None else {}

    def take(self, reply: Reply) -> bool:
        """Take in an answer that is all there, as most are; else False: then `read_reply`."""
        self.status, self.headers = reply.status, reply.headers
        if (body := reply.read_nowait(wire.ANSWER_KEPT)) is None:
            return False
        self.whole = True
        self._keep(body)
        return True

    async def read_reply(self, reply: Reply) -> None:
        """The body of one that `take` left: at most `ANSWER_KEPT` bytes, decoded, and no more than that is read."""
        raw = bytearray()
        try:
            await reply.read_into(raw, wire.ANSWER_KEPT)
            self.whole = True
        finally:
            self._keep(raw)

    async def read_response(self, response: httpx.Response) -> None:
        """Take in as much of an answer that httpx brings, over the caller's transport or ours in a Test connection."""
        self.status, self.headers = response.status_code, response.headers
        if response.is_stream_consumed:  # the caller's transport or event hook has read it, httpx.MockTransport does
            self.body, self.whole = response.content[: wire.ANSWER_KEPT], True
            return
        raw = bytearray()
        try:
            await self._read_stream(response, raw)
            self.whole = True
        finally:
            self._keep(raw)
            if not response.is_closed:
                with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                    await response.aclose()

    @staticmethod
    async def _read_stream(response: httpx.Response, raw: bytearray) -> None:
        """Read as much as is kept; what came before an error is in `raw`."""
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
            async for chunk in chunks:
                raw += chunk
                if len(raw) >= wire.ANSWER_KEPT:
                    break

    def _keep(self, raw: bytes | bytearray) -> None:
        encoding = self.headers.get("content-encoding")
        body = bytes(raw[: wire.ANSWER_KEPT])
        self.body = wire.decode_body(body, encoding) if encoding else body

    def judged(self, epoch: float, secret: str) -> Outcome | None:
        """What it means, or None where too little of it came to tell.

        Only a whole answer accepts a record; for a refusal its head is enough, whatever becomes of the body.
        """
        if self.status is None or (self.status // 100 == 2 and not self.whole):
            return None
        return wire.judge(self.status, self.headers, self.body, now=epoch, secret=secret)


def default_transport(url: str, ca_bundle: str | None = None) -> Transport:
    """The transport that carries the bytes where the caller brings none; open it inside a running event loop."""
    return Transport(tls_context(ca_bundle), environment_proxy(url))


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
        self._headers = Fields(wire.headers(credentials.workspace_id, credentials.api_key, user_agent))
        self._connection_test = httpx.URL(credentials.base_url + wire.CONNECTION_TEST_PATH)
        self._workspace_id = credentials.workspace_id
        self._transport = transport
        self._http = http
        self._ca_bundle = ca_bundle
        self._own_transport: Transport | None = None
        self._poster: Poster | None = None
        self._deadlines: Deadlines | None = None
        """None until it is entered."""

    async def __aenter__(self) -> Self:
        if self._transport is not None:
            # The client is ours but never entered: leaving it would close a transport that is the caller's.
            self._http = httpx.AsyncClient(
                transport=_Discreet(self._transport),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                trust_env=False,
                follow_redirects=False,
            )
        elif self._http is None:
            self._own_transport = transport = self._open_transport()
            self._poster = Poster(transport.session, str(self._url), self._headers, transport.proxy, transport.context)
        self._deadlines = Deadlines()
        return self

    def _open_transport(self) -> Transport:
        transport = default_transport(str(self._url), self._ca_bundle)
        if isinstance(transport.proxy, Proxy):
            self._secrets.append(transport.proxy.password)
        return transport

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._deadlines is not None:
            self._deadlines.close()
        if self._poster is not None:
            self._poster.close()
        if self._own_transport is not None:
            with anyio.CancelScope(shield=True):
                await self._own_transport.aclose()

    def attempt(self, record: Record) -> Coroutine[None, None, Outcome]:
        """Send the record once and judge what comes back; whatever goes wrong on the way is an outcome, too.

        Cancelling it, or its timeout, aborts the connection in the next turn of the loop: what was not sent by then
        never will be.
        """
        # no coroutine of its own, for there is one for every record
        return self._carry(partial(self._deliver, record.device), Answer())

    async def try_connection(self, answer: Answer) -> Outcome:
        """Ask MoEngage once whether the key is right, with its Test connection; `answer` takes in what comes of it."""
        workspace_id, key = self._workspace_id, self._secrets[0].reveal()
        headers = {**self._headers, wire.WORKSPACE_HEADER: workspace_id}
        body = wire.encode_connection_test(workspace_id, key, self._url.host)
        return await self._carry(partial(self._send, self._connection_test, headers, body), answer)

    async def _carry(self, begin: Callable[[Answer], Coroutine[None, None, None]], answer: Answer) -> Outcome:
        """Send the request that `begin` makes and take in its answer, within the timeout; say what comes of it.

        Raises what `begin` itself raises, and RuntimeError where it was not entered: that is no trouble of the network.
        """
        if (deadlines := self._deadlines) is None:
            raise RuntimeError("enter the client before the first attempt: async with Client(…) as client")
        under_way = answer.under_way = UnderWay(deadlines.loop.time() + self._timeout)
        exchange = begin(answer)
        missing, deadline = None, deadlines.watch(under_way.deadline)
        try:
            await exchange
        except Exception as error:  # noqa: BLE001  whatever a transport raises is trouble of this one attempt
            # Neither raised nor chained: exceptions of the HTTP stack hold the request, and with it the key.
            missing = judge_error(error, self._secrets)
            if self._poster is not None:  # else it is of a transport that may have more to do with it
                _let_go_of_frames(error)
        except asyncio.CancelledError:
            if not deadline.ends_it():
                raise
        finally:
            deadlines.forget(deadline)
            if not answer.whole:
                under_way.abort()
        judged = answer.judged(self._epoch(), self._secrets[0].reveal())
        return judged or missing or wire.trouble("timeout", f"timeout; no answer within {self._timeout:g} s")

    def _deliver(self, device: Device, answer: Answer) -> Coroutine[None, None, None]:
        """Make a device's request, and what sends it: over our own connections, or by httpx over the caller's."""
        body = wire.encode(device)
        own = {"X-Forwarded-For": device.forwarded_for} if device.forwarded_for else {}
        if self._poster is not None:
            return self._receive(self._poster.post(body, own, answer.under_way), answer)
        return self._send(self._url, {**self._headers, **own}, body, answer)

    @staticmethod
    async def _receive(posting: Awaitable[Reply], answer: Answer) -> None:
        reply = await posting
        if not answer.take(reply):
            await answer.read_reply(reply)

    def _send(
        self, url: httpx.URL, headers: Mapping[str, str], body: bytes, answer: Answer
    ) -> Coroutine[None, None, None]:
        send = self._sending()
        request = httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": NO_TIMEOUT})

        async def exchange() -> None:
            with connecting_for(answer.under_way):
                await answer.read_response(await send(request))

        return exchange()

    def _sending(self) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
        """What sends a request of httpx's: our own transport, a client around the caller's, or the caller's client."""
        if self._own_transport is not None:
            return self._own_transport.handle_async_request
        http = cast("httpx.AsyncClient", self._http)  # there is one since the client was entered
        if http.is_closed:
            raise RuntimeError("the httpx client that was handed in is closed: keep it open until the upload is over")
        return partial(http.send, stream=True, auth=None, follow_redirects=False)
