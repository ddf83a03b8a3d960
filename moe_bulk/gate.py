"""One at a time: whoever comes while nobody stands there goes through at once, before those that were woken for it."""

from __future__ import annotations

import asyncio
from collections import deque


class Gate:
    """A lock that is not fair: who holds the processor goes on, and those that wait are all the same to us.

    A fair lock hands over to the one that waits longest, at the cost of one turn of the event loop for each: once many
    wait, all must wait (a lock convoy), and requests leave one by one.
    """

    __slots__ = ("_taken", "_waiting", "_woken")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._woken: asyncio.Future[None] | None = None
        """Whoever was woken and has not looked yet: until then nobody else need be."""

    def enter_nowait(self) -> bool:
        """Stand there where nobody does; False where somebody does. Whoever stands there has to `leave`."""
        if self._taken:
            return False
        self._taken = True
        return True

    async def enter(self) -> None:
        """Wait until nobody stands there, then stand there."""
        while not self.enter_nowait():
            await self._wait()

    def leave(self) -> None:
        """Let others through."""
        self._taken = False
        if self._waiting:  # a call saved for every request
            self._wake()

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn is self._woken:
                self._woken = None
                if not self._taken:
                    self._wake()  # somebody has to stand there
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise
        self._woken = None

    def _wake(self) -> None:
        while self._woken is None and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task was cancelled, and has not heard of it yet
                self._woken = turn
                turn.set_result(None)

    def __repr__(self) -> str:
        return f"<Gate {'taken' if self._taken else 'free'}, {len(self._waiting)} waiting>"
