"""Kept connections between two requests: they wait here for the next one, and are closed where none comes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from moe_bulk.connections import IDLE_SECONDS

if TYPE_CHECKING:
    from moe_bulk.connections import UnderWay
    from moe_bulk.dialogue import Dialogue


class Idle:
    """Connections between two requests, all to one address: whichever waits longest is the next to be used.

    aiohttp's own pool does the same in several times as many steps of Python. Make it inside a running event loop, and
    close it before the connector.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Dialogue, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, attempt: UnderWay | None) -> Dialogue | None:
        """One that can carry this attempt, where there is one."""
        while self._waiting:
            dialogue, since = self._waiting.popleft()
            if dialogue.fit and not dialogue.transport.is_closing() and self._loop.time() - since <= IDLE_SECONDS:
                dialogue.carrier.carry(attempt)
                return dialogue
            dialogue.close()
        return None

    def give(self, dialogue: Dialogue) -> None:
        """Keep one whose answer has come in good order, for some seconds."""
        dialogue.carrier.attempt = None
        if self._closed:
            dialogue.release()
            return
        self._waiting.append((dialogue, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(IDLE_SECONDS, self._close_late)

    def _close_late(self) -> None:
        """Close what has waited for too long."""
        now, self._timer = self._loop.time(), None
        while self._waiting and now - self._waiting[0][1] >= IDLE_SECONDS:
            self._waiting.popleft()[0].close()
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][1] + IDLE_SECONDS, self._close_late)

    def close(self) -> None:
        """Give all back to the connector, which closes them as it closes, now and from now on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._waiting.popleft()[0].release()
