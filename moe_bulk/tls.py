"""TLS over a connection that was made without it: what comes in is read at once, and nothing is kept back.

It stands between a transport and whoever speaks over it, to whom it is a transport. asyncio's own looks behind each
record for another one by means of an exception, keeps 256 KiB for each connection, and still sends what it holds back
when it is aborted; it takes some 430 steps of Python for a request and its answer, and this about a hundred.

All that is cryptography is OpenSSL's: https://docs.python.org/3/library/ssl.html#memory-bio-support
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from contextlib import suppress
from typing import Any, cast


class Tls(asyncio.BufferedProtocol, asyncio.Transport):
    """Speaks TLS over `transport`, as a client: `handshake` comes first, then it is used as a transport.

    `context` says whom it trusts, `hostname` whose certificate it has to be. `buffer` is where what comes in is read
    to; all connections of one event loop may share it with those who speak over them, because it is emptied at once.
    """

    def __init__(
        self, transport: asyncio.Transport, context: ssl.SSLContext, hostname: str, buffer: memoryview
    ) -> None:
        super().__init__()
        self._transport = transport
        self._buffer = buffer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._shaken: asyncio.Future[None] | None = None
        """The handshake that is waited for, until it is over."""
        self._speaker: asyncio.BufferedProtocol | None = None
        self._before: asyncio.BaseProtocol | None = transport.get_protocol()
        """Who is told of the end where nobody speaks yet."""
        self._broken: ssl.SSLError | None = None
        transport.set_protocol(self)

    def handshake(self) -> asyncio.Future[None]:
        """Agree on keys with the server, and see that it is the one; nobody may speak before that is done.

        It raises ssl.SSLError, or OSError where the connection ended. After an error, and where it was cancelled, the
        caller aborts the transport.
        """
        self._shaken = shaken = asyncio.get_running_loop().create_future()
        self._shake(shaken)
        return shaken

    def _shake(self, shaken: asyncio.Future[None]) -> None:
        error = None
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as refused:
            error = refused.with_traceback(None)  # its frames know of this, which knows of it
        finally:
            self._send_outgoing()
        self._end_handshake(shaken, error)

    def _end_handshake(self, shaken: asyncio.Future[None], error: Exception | None) -> None:
        self._shaken = None
        if shaken.done():  # cancelled
            return
        if error is None:
            shaken.set_result(None)
        else:
            shaken.set_exception(error)

    # -- what comes in -------------------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop is to read to."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came in."""
        self._incoming.write(self._buffer[:nbytes])
        if self._speaker is not None:
            self._read(self._speaker)
        elif self._shaken is not None:
            self._shake(self._shaken)

    def _read(self, speaker: asyncio.BufferedProtocol) -> None:
        """Give on what came in whole; OpenSSL keeps the beginning of a record until the rest is there."""
        try:
            while True:
                buffer = cast("memoryview", speaker.get_buffer(-1))
                count: int = self._object.read(len(buffer), buffer)  # type: ignore[assignment]
                if not count:
                    self._end(speaker)
                    return
                speaker.buffer_updated(count)
                if not self._incoming.pending or self._transport.is_closing():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the same end, where we had said before that no more comes
            self._end(speaker)
            return
        except ssl.SSLError as error:
            self._broken = error.with_traceback(None)  # as in `_shake`
            self._send_outgoing()
            self.abort()
            return
        self._send_outgoing()  # keys may have been renewed

    def _end(self, speaker: asyncio.BufferedProtocol) -> None:
        """The server has said that no more comes."""
        speaker.eof_received()
        self.close()

    def eof_received(self) -> None:
        """The server says no more, and has not said so by TLS; the event loop closes it as soon as this returns."""
        if self._speaker is not None:
            self._speaker.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """It ended."""
        if self._shaken is not None:
            cut_short = ConnectionResetError(errno.ECONNRESET, "it ended amid the TLS handshake")
            self._end_handshake(self._shaken, error or cut_short)
        told, self._speaker, self._before = self._speaker or self._before, None, None
        if told is not None:
            told.connection_lost(error or self._broken)

    # -- what is asked of a transport ----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it; raises ssl.SSLError where TLS is at its end, or keys are just being agreed on again (TLS 1.2)."""
        self._object.write(data)  # all of it: OpenSSL writes in part only where it is told to, and Python does not
        self._transport.write(self._outgoing.read())

    def _send_outgoing(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def farewell(self) -> None:
        """Say that no more comes, as TLS wants it said before a connection is closed; no answer is waited for."""
        with suppress(ssl.SSLError):
            self._object.unwrap()
        self._send_outgoing()

    def close(self) -> None:  # noqa: D102  the parents'
        self.farewell()
        self._transport.close()

    def abort(self) -> None:  # noqa: D102
        self._transport.abort()

    def is_closing(self) -> bool:  # noqa: D102
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:  # noqa: D102
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:  # noqa: D102
        self._transport.pause_reading()

    def resume_reading(self) -> None:  # noqa: D102
        self._transport.resume_reading()

    def get_protocol(self) -> asyncio.BaseProtocol:  # noqa: D102
        return cast("asyncio.BaseProtocol", self._speaker)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let a BufferedProtocol speak from now on; it is told at once of what came behind the handshake.

        Its buffer holds a record of TLS at least, which is 16 KiB.
        """
        self._speaker = cast("asyncio.BufferedProtocol", protocol)
        if self._incoming.pending and not self._transport.is_closing():
            self._read(self._speaker)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the transport's; `peercert` is the server's certificate, as `ssl.SSLSocket.getpeercert` gives it."""
        return self._object.getpeercert() if name == "peercert" else self._transport.get_extra_info(name, default)
