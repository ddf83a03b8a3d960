"""Requests that become ready at nearly the same time leave together, one callback of the event loop later.

To send is a way through TLS and the kernel: `together` says what is saved where several requests take it in one go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from moe_bulk.connections import NOT_FIT, attempt_under_way, is_fit
from moe_bulk.together import Together

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


class SendQueue(Together[PendingRequest]):
    """Requests that leave in one go."""

    def __init__(self) -> None:
        super().__init__(_send_all)


def _send_all(pending: list[PendingRequest]) -> None:
    loop = asyncio.get_running_loop()
    for request in pending:
        request.send(loop.time())
