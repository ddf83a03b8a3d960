"""Requests that become ready at nearly the same time leave together, one callback of the event loop later.

To send is a way through TLS and the kernel: `together` says what is saved where several requests take it in one go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from moe_bulk.together import Together

if TYPE_CHECKING:
    from moe_bulk.connections import UnderWay
    from moe_bulk.dialogue import Dialogue


class PendingRequest:
    """A request of an attempt, if it is one's, whose connection was chosen.

    What it is to send holds a secret: pass bytes that show nothing.
    """

    __slots__ = ("_attempt", "_dialogue", "_request")

    def __init__(self, dialogue: Dialogue, request: bytes, attempt: UnderWay | None) -> None:
        self._dialogue = dialogue
        self._request = request
        self._attempt = attempt

    def send(self, now: float) -> None:
        """Send it, unless that may no longer be; `now` is the loop's time, in seconds.

        The process may have stood still since its connection was chosen. Whoever waits for the answer hears of it from
        others then: from the timeout, or from a connection that is lost.
        """
        late = self._attempt is not None and self._attempt.is_late(now)
        if not late and not self._dialogue.transport.is_closing():
            self._dialogue.send(self._request)


class SendQueue(Together[PendingRequest]):
    """Requests that leave in one go."""

    def __init__(self) -> None:
        super().__init__(_send_all)


def _send_all(pending: list[PendingRequest]) -> None:
    loop = asyncio.get_running_loop()
    for request in pending:
        request.send(loop.time())
