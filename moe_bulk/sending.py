"""Requests that become ready at nearly the same time leave together, one callback of the event loop later.

To send leads through TLS and the kernel, which push the rest of the program out of the processor's caches. Where
requests leave one behind the other, that is paid once for all of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from moe_bulk.connections import NOT_FIT, attempt_under_way, is_fit

if TYPE_CHECKING:
    from aiohttp.connector import Connection


class PendingRequest:
    """A request whose connection was chosen; `handed_over` once the connection has it, though one that closes drops it.

    Make it in the attempt's own task, for it asks there by when it may be sent. What it is to send holds a secret: pass
    bytes that show nothing.
    """

    __slots__ = ("_attempt", "_connection", "_request", "handed_over")

    def __init__(self, connection: Connection, request: bytes) -> None:
        self._attempt = attempt_under_way.get(None)
        self._connection = connection
        self._request = request
        self.handed_over = False

    def send(self, now: float) -> None:
        """Send it, unless that may no longer be; `now` is the loop's time, in seconds.

        The process may have stood still since its connection was chosen. Whoever waits for the answer hears of it where
        nobody else tells them, as the timeout does, and a connection that is lost.
        """
        protocol, transport = self._connection.protocol, self._connection.transport
        if protocol is None or transport is None or (self._attempt is not None and self._attempt.is_late(now)):
            return
        if not is_fit(protocol):
            protocol.set_exception(aiohttp.ClientConnectionError(NOT_FIT))
            return
        try:
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
            transport.write(self._request)
            self.handed_over = True
        except Exception as error:  # noqa: BLE001  the attempt's, not ours: others wait behind it
            protocol.set_exception(error)


class SendQueue:
    """Requests that leave in one go, when all callbacks have run that were due as the first of them came."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: list[PendingRequest] = []

    def put(self, request: PendingRequest) -> None:
        """Send it with those that wait already, behind them; never within this call."""
        if not self._pending:
            self._loop.call_soon(self._send)
        self._pending.append(request)

    def _send(self) -> None:
        pending, self._pending = self._pending, []
        for request in pending:
            request.send(self._loop.time())
