"""A POST and its answer over a kept connection: what a request costs is mostly decided here.

The address and the headers of our requests are the same each time, so they are made into bytes once; head and body
leave in one write, with those of other requests (`sending`), and aiohttp's own parser reads the answer. Above its
connections aiohttp builds a request, an answer and a task that writes for every POST, which costs more than all that
the engine does for a record. What goes over the wire is the same: pinned by `tests/test_posting.py`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from moe_bulk.connections import Carrier
from moe_bulk.dialogue import READ_AT_ONCE, Dialogue
from moe_bulk.idle import Idle
from moe_bulk.sending import PendingRequest, SendQueue
from moe_bulk.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

    from moe_bulk.connections import UnderWay

_LOG = logging.getLogger("httpx")
"""Where httpx tells of each request: whoever listens there hears of these, too."""

_ANY_TIME = aiohttp.ClientTimeout()
"""An attempt has one timeout for all of it, which is not ours to keep."""

_OF_THE_BODY = frozenset({"Content-Length", "Transfer-Encoding"})
"""Headers that tell of one body alone: each request has its own."""

_AT_ONCE = 8 * 1024
"""Bytes that a socket that holds nothing takes at once, whatever the system."""


class Fields(CIMultiDict[str]):
    """Headers in aiohttp's own form; they hold a secret, and show nothing."""

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


class _Hidden(bytes):
    """What is sent; it holds a secret, and shows nothing: a traceback tells what variables hold."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


class Reply:
    """An answer whose head has come: its status, its headers by any case, and what comes of its body."""

    __slots__ = ("_dialogue", "_idle", "_payload", "_sent", "headers", "status")

    def __init__(
        self, dialogue: Dialogue, message: RawResponseMessage, payload: StreamReader, sent: int, idle: Idle
    ) -> None:
        self.status = message.code
        self.headers: Mapping[str, str] = message.headers
        self._dialogue = dialogue
        self._payload = payload
        self._sent = sent
        self._idle = idle

    def read_nowait(self, most: int) -> bytes | None:
        """The body where all of it is there, as mostly, and has `most` bytes at most; else None: then `read_into`.

        The connection is kept for the next request, closed or aborted, as there.
        """
        payload = self._payload
        if not payload.is_eof() or payload.total_bytes > most:
            return None
        body = payload.read_nowait()
        self._let_go()
        return body

    async def read_into(self, body: bytearray, most: int) -> None:
        """Add what comes of the body, about `most` bytes at most; what came before an error is in `body`.

        The connection is kept for the next request where all of it came and the server does not close it; where less
        came it is aborted.
        """
        payload = self._payload
        try:
            while not payload.at_eof() and len(body) < most:
                body += await payload.read(most)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Keep the connection for the next request, or let it end."""
        dialogue = self._dialogue
        if not self._payload.at_eof() or not self._all_said(dialogue.transport):
            dialogue.abort()
            return
        dialogue.rest()
        if dialogue.fit:
            self._idle.give(dialogue)
        else:
            dialogue.close()

    def _all_said(self, transport: asyncio.Transport) -> bool:
        """True where all was said on both sides: neither an answer nor the rest of a request is still to come.

        A server may refuse a request that it has not read. How much of it asyncio's TLS keeps back is not told, so a
        refusal of what does not fit into a socket at once is taken for such a one.
        """
        if transport.is_closing():  # asyncio's over TLS knows no buffer any more
            return False
        unread = transport.get_write_buffer_size() or (self._sent > _AT_ONCE and self.status // 100 != 2)
        return self.status >= 200 and not unread


class Poster:
    """Posts bodies to `url`, each with the same `fields`, over the connections of `session`.

    Make it inside a running event loop, and close it before the session. With a `context`, TLS is `tls.Tls` where there
    is no proxy; else the session's own. Its exceptions are those of `Dialogue.ask` and of aiohttp's connector, and
    ValueError for a header that could bring others.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        fields: Fields,
        proxy: httpx.Proxy | None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        if session.connector is None:
            raise RuntimeError("the session is closed: nothing can be posted over it")
        address = URL(url)
        # What the connector has to know of a request, and what aiohttp would say in its head: never sent itself.
        self._request = request = aiohttp.ClientRequest(
            "POST",
            address,
            headers=fields,
            loop=asyncio.get_running_loop(),
            session=session,
            proxy=None if proxy is None else URL(str(proxy.url)),
            # aiohttp adds the host on the way, and keeps connections apart by these headers
            proxy_headers=None if proxy is None else {**proxy.headers, "Host": address.host_port_subcomponent or ""},
        )
        self._session = session
        self._connector = session.connector
        # Straight to the server TLS is ours, over a connection that aiohttp makes as if for http.
        self._context = context if address.scheme == "https" and proxy is None else None
        self._way = request
        if self._context is not None:
            plain = address.with_scheme("http").with_port(address.port)
            self._way = aiohttp.ClientRequest("POST", plain, loop=asyncio.get_running_loop(), session=session)
        self._idle = Idle()
        self._buffer = memoryview(bytearray(READ_AT_ONCE))
        self._queue = SendQueue()
        self._url = url
        lines = [f"POST {request.url.raw_path_qs} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if name not in _OF_THE_BODY]
        self._head = _Hidden("\r\n".join(map(_one_line, lines)).encode())

    async def post(self, body: bytes, more: Mapping[str, str] | None = None, attempt: UnderWay | None = None) -> Reply:
        """Send it and return as soon as the head of the answer is there; `more` are headers of this request alone.

        `attempt` says until when it may be sent, and is told what carries it.
        """
        dialogue = self._idle.take(attempt) or await self._connect(attempt)
        try:
            request = self._request_of(body, more)
            sent, answer = len(request), dialogue.ask()
            self._queue.put(PendingRequest(dialogue, request, attempt))
            del body, request  # as long as they wait, others can make use of their memory, which is near
            message, payload = await answer
            if _LOG.isEnabledFor(logging.INFO):
                _LOG.info("HTTP Request: POST %s %d", self._url, message.code)
        except BaseException:
            dialogue.abort()
            raise
        return Reply(dialogue, message, payload, sent, self._idle)

    async def _connect(self, attempt: UnderWay | None) -> Dialogue:
        """A new connection; where TLS fails at one of a host's addresses, the others are tried, as aiohttp does."""
        carrier = await self._carrier(self._way, attempt)
        if self._context is None:
            return Dialogue(carrier, self._buffer)
        peer = carrier.transport.get_extra_info("peername")
        try:
            return await self._encrypted(carrier, self._context)
        except aiohttp.ClientConnectorError as error:
            refused = error.with_traceback(None)
        try:
            for way in await self._other_ways(peer):
                with suppress(aiohttp.ClientConnectionError):
                    return await self._encrypted(await self._carrier(way, attempt), self._context)
            raise refused
        finally:
            del refused  # it would know of this frame, and this frame of it

    async def _carrier(self, way: aiohttp.ClientRequest, attempt: UnderWay | None) -> Carrier:
        return Carrier(await self._connector.connect(way, [], _ANY_TIME), attempt)

    async def _other_ways(self, peer: tuple[object, ...] | None) -> list[aiohttp.ClientRequest]:
        """What the connector has to know to connect to the host's other addresses than this one."""
        loop, url = asyncio.get_running_loop(), self._way.url
        try:
            found = await loop.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM)
        except OSError:
            return []
        others = dict.fromkeys(address[:2] for *_, address in found if peer is None or address[:2] != peer[:2])
        return [
            aiohttp.ClientRequest(
                "POST", url.with_host(str(host)).with_port(int(port)), loop=loop, session=self._session
            )
            for host, port in others
        ]

    async def _encrypted(self, carrier: Carrier, context: ssl.SSLContext) -> Dialogue:
        """Let it carry TLS; raises what aiohttp's connector raises where that fails."""
        key, host = self._request.connection_key, self._request.url.raw_host or ""
        try:
            tls = Tls(carrier.transport, context, host.rstrip("."), self._buffer)
            await tls.handshake()
            carrier.transport = tls
            return Dialogue(carrier, self._buffer)
        except BaseException as error:
            carrier.reset()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise aiohttp.ClientConnectorCertificateError(key, error) from error.with_traceback(None)
            if isinstance(error, ssl.SSLError):
                raise aiohttp.ClientConnectorSSLError(key, error) from error.with_traceback(None)
            if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError):
                raise aiohttp.ClientConnectorError(key, error) from error.with_traceback(None)
            raise

    def close(self) -> None:
        """Keep no connection any longer; their connector closes them."""
        self._idle.close()

    def _request_of(self, body: bytes, more: Mapping[str, str] | None) -> _Hidden:
        added = "".join(f"\r\n{_one_line(f'{name}: {value}')}" for name, value in more.items()) if more else ""
        return _Hidden(b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, added.encode(), len(body), body))


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a header holds what does not print")
    return text
