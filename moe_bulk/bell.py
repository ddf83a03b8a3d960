"""Wait until something has happened: whoever waits looks again at every ring."""

from __future__ import annotations

import asyncio

SHORTEST_WAIT = 0.001
"""Seconds; the event loop's timers are no finer."""


class Bell:
    """Rung for all who wait at that moment. A ring that nobody waits for is forgotten: look first, then wait.

    Plain futures: this is waited for once a record, and an event inside a cancel scope costs several times as much.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for the next ring, for so many seconds at most."""
        loop = asyncio.get_running_loop()
        rung: asyncio.Future[None] = loop.create_future()
        self._waiting.add(rung)
        timer = None if seconds is None else loop.call_later(max(seconds, SHORTEST_WAIT), _wake, rung)
        try:
            await rung
        finally:
            self._waiting.discard(rung)
            if timer is not None:
                timer.cancel()

    def ring(self) -> None:
        """Let all who wait look again."""
        if self._waiting:
            for rung in self._waiting:
                _wake(rung)
            self._waiting.clear()  # each is rung once

    def __repr__(self) -> str:
        return f"<Bell: {len(self._waiting)} waiting>"


def _wake(rung: asyncio.Future[None]) -> None:
    if not rung.done():
        rung.set_result(None)
