"""Connections beneath `dialogue` and httpx-aiohttp's transport: giving up can abort them, and none lingers."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import aiohttp
from httpx_aiohttp import AiohttpTransport

if TYPE_CHECKING:
    import ssl
    from asyncio.trsock import TransportSocket
    from collections.abc import Iterator, Mapping, Sequence

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


class Carrier:
    """A connection, and the attempt that it carries at this moment, which is told of it.

    Raises aiohttp's ClientConnectionError where the connection has ended already.
    """

    __slots__ = ("_socket", "attempt", "connection", "transport")

    def __init__(self, connection: aiohttp.connector.Connection, attempt: UnderWay | None) -> None:
        transport = connection.transport
        if transport is None:
            raise aiohttp.ClientConnectionError(NOT_FIT)
        self.connection = connection
        self.transport = transport
        """What carries bytes: the connection's own, until whoever speaks TLS over it sets theirs."""
        self._socket: TransportSocket = transport.get_extra_info("socket")
        self.carry(attempt)

    def carry(self, attempt: UnderWay | None) -> None:
        """Be what carries this attempt from now on."""
        self.attempt = attempt
        if attempt is not None:
            attempt.carriers.append(self)

    def abort(self, attempt: UnderWay) -> None:
        """Reset it, unless the attempt gave it back in good order: then it may already carry another one."""
        given_back = self.connection.transport is None and not self.transport.is_closing()
        if self.attempt is attempt and not given_back:
            self.reset()

    def reset(self) -> None:
        """Throw away what was not sent yet: no server finds it later, and nobody waits until one reads it."""
        if self._socket.fileno() >= 0:  # asyncio fails to abort what was closed with something left to say, and is gone
            # before it is closed: asyncio's TLS says what it has left all the same, once it is
            with suppress(AttributeError):  # that of CPython 3.11.2, where it was aborted and closed before
                self.transport.abort()
        self.connection.close()

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The server's, as `ssl.SSLSocket.getpeercert` gives it; empty where there is none."""
        try:
            return self.transport.get_extra_info("peercert") or {}
        except AttributeError:  # as in `reset`
            return {}


class UnderWay:
    """What whoever sends has to know of an attempt: by when it may, in seconds of the loop's time; what carried it."""

    __slots__ = ("carriers", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.carriers: list[Carrier] = []

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The server's, as `ssl.SSLSocket.getpeercert` gives it; empty where there is none, or no connection."""
        return self.carriers[-1].certificate if self.carriers else {}

    def carried_by(self, connection: aiohttp.connector.Connection) -> None:
        """Remember a new connection, to be aborted with the attempt."""
        Carrier(connection, self)

    def is_late(self, now: float) -> bool:
        """True when nothing may be sent any more: its slot may have passed."""
        return now > self.deadline

    def abort(self) -> None:
        """Reset its connections: what was not sent yet never will be."""
        for carrier in self.carriers:
            carrier.abort(self)


attempt_under_way: ContextVar[UnderWay | None] = ContextVar("attempt_under_way", default=None)
"""The attempt for which this task makes connections beneath httpx, which passes nothing on."""


@contextmanager
def connecting_for(attempt: UnderWay | None) -> Iterator[None]:
    """Within it, httpx-aiohttp's transport tells this attempt what carries it."""
    token = attempt_under_way.set(attempt)
    try:
        yield
    finally:
        attempt_under_way.reset(token)


class Connector(aiohttp.TCPConnector):
    """Tells the attempt which new connection carries it, so that giving up can abort it, and lets no socket linger."""

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
        attempt = attempt_under_way.get()
        if attempt is not None and attempt.is_late(asyncio.get_running_loop().time()):
            # The process stood still on the way here.
            connection.close()
            raise TimeoutError
        if connection.transport is None or connection.protocol is None or not is_fit(connection.protocol):
            connection.close()
            raise aiohttp.ClientConnectionError(NOT_FIT)
        if attempt is not None:
            attempt.carried_by(connection)
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
        self.context = context
        """Whom TLS trusts."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """What carries the bytes; it is opened when it is first asked for, inside a running event loop."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        return self.client

    def _open(self) -> aiohttp.ClientSession:
        # No headers here: aiohttp would tell them to a proxy, too, and the key is among them.
        return aiohttp.ClientSession(
            connector=Connector(self.context),
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            trust_env=False,
        )
