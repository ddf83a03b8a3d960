"""A kept connection on which requests and answers take turns: one of either at a time, and nothing in between.

aiohttp's connector makes the connection and its parser reads the answers. What aiohttp has between the two makes a new
parser for each answer, and looks after each read whether anything had been held up: three hundred steps of Python an
answer, where this takes sixty.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, cast

import aiohttp
from aiohttp.http import HttpParser, HttpResponseParser
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError

from moe_bulk.connections import NOT_FIT, is_fit
from moe_bulk.tls import Tls

if TYPE_CHECKING:
    from aiohttp.base_protocol import BaseProtocol
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

    from moe_bulk.connections import Carrier

Head: TypeAlias = "tuple[RawResponseMessage, StreamReader]"
"""The head of an answer, and what comes of its body."""

READ_AT_ONCE = 64 * 1024
"""Bytes that are read from a connection at once, and about as many of a body wait to be taken."""

MOST_PROVISIONAL = 20
"""More of them before an answer, and nobody waits for that: an endless row of them leaves no time for anything else."""

_TOO_LATE = (AttributeError, RuntimeError)
"""What event loops raise where somebody pauses or resumes a connection that is ending."""


class Dialogue(asyncio.BufferedProtocol):
    """Takes a connection over from aiohttp: `ask` for an answer, `send` the request, and `rest` behind the answer.

    Make it inside a running event loop. `buffer` is where what comes in is read to; all connections of one event loop
    may share it, because it is emptied at once. Raises aiohttp's ClientConnectionError where the connection has ended.
    """

    def __init__(self, carrier: Carrier, buffer: memoryview) -> None:
        before, transport = carrier.connection.protocol, carrier.transport
        if before is None or carrier.connection.transport is None:
            raise aiohttp.ClientConnectionError(NOT_FIT)
        self.carrier = carrier
        self.transport = transport
        self.fit = is_fit(before)
        """False where it carries no further request: it ends, or something came in unasked."""
        self.connected = True
        self._before = before
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._parser: HttpResponseParser | None = self._new_parser()
        self._parses_in_python = isinstance(self._parser, HttpParser)  # asked once: it runs code in Python
        self._answer: asyncio.Future[Head] | None = None
        self._body: StreamReader | None = None
        self._provisional = 0
        self._sent = False
        self._reading_paused = False  # by this name, because bodies of aiohttp 3.13 ask for it
        transport.set_protocol(self)

    def _new_parser(self) -> HttpResponseParser:
        return HttpResponseParser(
            cast("BaseProtocol", self),  # as far as bodies need one: `connected`, `pause_reading`, `resume_reading`
            self._loop,
            READ_AT_ONCE,
            payload_exception=aiohttp.ClientPayloadError,
            read_until_eof=True,
            auto_decompress=False,
        )

    # -- a request and its answer --------------------------------------------------------------------------------------

    def ask(self) -> asyncio.Future[Head]:
        """The head of the answer to what is sent next, once it is there.

        Where none comes it raises aiohttp's exceptions, or what the event loop said instead of OSError.
        """
        self._answer = answer = self._loop.create_future()
        return answer

    def send(self, request: bytes) -> None:
        """Send what was asked for; whoever waits for the answer hears of what is in the way.

        A connection may drop what it was given when it ends. The request holds a secret: pass bytes that show nothing.
        """
        if not self.fit:
            self._tell(aiohttp.ClientConnectionError(NOT_FIT))
            return
        self._sent = True
        try:
            self.transport.write(request)
        except Exception as error:  # noqa: BLE001  of whoever waits for the answer, not of who sends
            self.fit = False
            self._tell(error)

    def rest(self) -> None:
        """The answer is over: whatever came in behind it, or comes in before the next request, was not asked for."""
        self._answer = self._body = None
        self._provisional, self._sent = 0, False
        if self._parser is None:  # the connection has ended
            return
        try:
            if self._parser.feed_eof() is not None:  # the beginning of another answer, which would precede the next one
                self.fit = False
        except Exception:  # noqa: BLE001  a beginning that makes no sense
            self.fit = False
        if self._parses_in_python:  # then aiohttp's parser tells less, and keeps what it was told
            self._parser = self._new_parser()

    def abort(self) -> None:
        """Give it up, with what was not sent yet."""
        self.fit = False
        self.carrier.reset()

    def close(self) -> None:
        """End it between two requests, with TLS's word for that; whether it still arrives matters to nobody."""
        self._say_goodbye()
        self.carrier.connection.close()

    def release(self) -> None:
        """Say TLS's last word and give it back to the connector, which is about to close itself and all that it has."""
        self._say_goodbye()
        self.carrier.connection.release()

    def _say_goodbye(self) -> None:
        if self.connected and isinstance(self.transport, Tls):  # aiohttp knows nothing of our TLS
            self.transport.farewell()

    # -- what comes in -------------------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop is to read to."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came in."""
        if self._sent and self._parser is not None:
            self._read(self._parser, bytes(self._buffer[:nbytes]))
        else:
            self.fit = False

    def _read(self, parser: HttpResponseParser, data: bytes) -> None:
        try:
            messages, upgraded, _ = parser.feed_data(data)
        except Exception as error:  # noqa: BLE001  whatever it is, it is no answer
            self.abort()
            self._tell(_broken(error))
            return
        if upgraded:
            self.fit = False
        for message, body in messages:
            self._take(message, body)

    def _take(self, message: RawResponseMessage, body: StreamReader) -> None:
        """Take in the head of an answer."""
        answer = self._answer
        if answer is None or answer.done() or message.should_close:
            self.fit = False
        if answer is None or answer.done():
            return
        if not _is_provisional(message.code):
            self._body = body
            answer.set_result((message, body))
            return
        self._provisional += 1
        if self._provisional > MOST_PROVISIONAL:
            self.fit = False
            answer.set_exception(BadHttpMessage("nothing but provisional answers"))

    def _tell(self, error: Exception) -> None:
        """Let it hear of an error who waits for the head, or for what is left of the body."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif self._body is not None and not self._body.is_eof():
            self._body.set_exception(error)

    def eof_received(self) -> None:
        """The other side says no more: what it has not read yet, and so will not answer, is not sent on."""
        self.fit = False
        if not self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.abort()  # the event loop would wait until it is sent

    def connection_lost(self, error: Exception | None) -> None:
        """It ended; a body may be whole with that."""
        self.connected = self.fit = False
        parser, self._parser = self._parser, None
        try:
            if parser is not None:
                parser.feed_eof()
            lost = _lost(error)
        except Exception as broken:  # noqa: BLE001  as above
            lost = aiohttp.ClientPayloadError(f"the body ended too early: {broken}")
            lost.__cause__ = broken.with_traceback(None)  # which knows of this frame, where nobody may wait for `lost`
        self._tell(lost)
        self._before.connection_lost(error)  # the connector waits for it
        self._leave()

    def _leave(self) -> None:
        """Let go of all that knows of this connection, so that its memory is free at once: with asyncio's TLS 256 KiB.

        Left to Python's garbage collector, an upload that makes hardly any garbage would keep a thousand of them.
        """
        self._answer = self._body = None
        self.carrier.attempt = None
        with suppress(*_TOO_LATE):
            self.transport.set_protocol(_NOBODY)

    # -- what a body asks for that nobody reads ------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """There is enough of it for now, with what was read already."""
        self._reading_paused = True
        with suppress(*_TOO_LATE):
            self.transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  as bodies say it
        """More may come."""
        del resume_parser  # it is not held up: it only has to be where bodies are decompressed
        if self._reading_paused:
            self._reading_paused = False
            with suppress(*_TOO_LATE):
                self.transport.resume_reading()


class _Nobody(asyncio.BufferedProtocol):
    """Whom asyncio's TLS may know in place of a dialogue that is over: it forgets only the methods of its kind."""


_NOBODY = _Nobody()


def _is_provisional(status: int) -> bool:
    """True where the answer itself is still to come (RFC 9110, 15.2); behind a 101 there is another protocol."""
    return 100 <= status < 200 and status != 101


def _lost(error: Exception | None) -> Exception:
    """What the end of a connection is told as."""
    if not isinstance(error, OSError):
        return error or aiohttp.ServerDisconnectedError()
    lost = aiohttp.ClientOSError(*error.args)
    lost.__cause__ = error
    return lost


def _broken(error: Exception) -> HttpProcessingError:
    """What a parser's error is told as."""
    if isinstance(error, HttpProcessingError):
        return error
    broken = HttpProcessingError()
    broken.__cause__ = error
    return broken
