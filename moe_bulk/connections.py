"""Connections that giving up can abort, beneath `posting` and httpx-aiohttp's transport."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakSet

import aiohttp
from httpx_aiohttp import AiohttpTransport

if TYPE_CHECKING:
    import ssl
    from asyncio.trsock import TransportSocket
    from collections.abc import Mapping, Sequence

    import httpx

IDLE_SECONDS = 15.0
"""How long an unused connection is kept: shorter than any server or load balancer waits before it closes one."""
NAMES_SECONDS = 10
"""How long a name's addresses are known; then a new connection asks again, for runs of days outlive them."""


NOT_FIT = "the server closed the connection, or spoke before it was asked"
"""Said where a connection that was chosen carries no request after all."""


def is_fit(protocol: aiohttp.client_proto.ResponseHandler) -> bool:
    """False where it ended, or something came in unasked: aiohttp would take that for the next request's answer."""
    return not protocol.should_close


def _linger(*, on: bool) -> bytes:
    """SO_LINGER of 0 s: closing throws away what was not sent yet, so that nothing arrives after it was given up."""
    return struct.pack("ii", int(on), 0)


class _Held(NamedTuple):
    """The connection that carries an attempt."""

    connection: aiohttp.connector.Connection
    transport: asyncio.Transport
    socket: TransportSocket

    def abort(self) -> None:
        """Reset it, unless it was given back in good order: then it may already carry another attempt."""
        given_back = self.connection.transport is None and not self.transport.is_closing()
        # asyncio fails to abort what was closed with something left to say, and is gone since
        if not given_back and self.socket.fileno() >= 0:
            self.transport.abort()


class UnderWay:
    """What whoever sends has to know of an attempt: by when it may, in seconds of the loop's time; what carried it."""

    __slots__ = ("carriers", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.carriers: list[_Held] = []

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The server's, as `ssl.SSLSocket.getpeercert` gives it; empty where there is none, or no connection."""
        return next((held.transport.get_extra_info("peercert") or {} for held in reversed(self.carriers)), {})

    def is_late(self, now: float) -> bool:
        """True when nothing may be sent any more: its slot may have passed."""
        return now > self.deadline

    def abort(self) -> None:
        """Reset its connections: what was not sent yet never will be."""
        for carrier in self.carriers:
            carrier.abort()


attempt_under_way: ContextVar[UnderWay] = ContextVar("attempt_under_way")
"""The attempt that this task makes."""


class Connector(aiohttp.TCPConnector):
    """Tells the attempt which connection carries it, so that giving up can abort it, and lets no socket linger."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(
            limit=0,  # a request must never queue behind a slot that was already taken
            ssl=context,
            keepalive_timeout=IDLE_SECONDS,
            ttl_dns_cache=NAMES_SECONDS,
            socket_factory=self._open,
        )
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def _open(self, address: tuple[Any, ...]) -> socket.socket:
        opened = socket.socket(*address[:3])
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _linger(on=True))
        self._sockets.add(opened)
        return opened

    async def connect(  # noqa: D102  the parent's
        self,
        req: aiohttp.ClientRequest,
        traces: Sequence[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the connector's own signature
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, list(traces), timeout)
        attempt = attempt_under_way.get(None)
        if attempt is not None and attempt.is_late(asyncio.get_running_loop().time()):
            # The process stood still on the way here.
            connection.close()
            raise TimeoutError
        if connection.transport is None or connection.protocol is None or not is_fit(connection.protocol):
            connection.close()
            raise aiohttp.ClientConnectionError(NOT_FIT)
        if attempt is not None:
            opened = connection.transport.get_extra_info("socket")
            attempt.carriers.append(_Held(connection, connection.transport, opened))
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:  # noqa: D102  the parent's
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


class Transport(AiohttpTransport):
    """httpx-aiohttp's transport, whose session and connections are ours."""

    def __init__(self, context: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        super().__init__(verify=context, client=self._open, proxy=proxy)
        self._context = context

    @property
    def session(self) -> aiohttp.ClientSession:
        """What carries the bytes; it is opened when it is first asked for, inside a running event loop."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        return self.client

    def _open(self) -> aiohttp.ClientSession:
        # No headers here: aiohttp would tell them to a proxy, too, and the key is among them.
        return aiohttp.ClientSession(
            connector=Connector(self._context),
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            trust_env=False,
        )
