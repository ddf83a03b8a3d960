"""One timer for all attempts: where each may take as long as any other, the first to begin is the first to be late.

A timer for each would be made and cancelled for every row, at some 4 % of what a row costs.
"""

from __future__ import annotations

import asyncio


class Deadlines:
    """Lets timeouts that were entered without a moment expire at theirs. Their deadlines ascend: `watch` in that order.

    All of it within one event loop; deadlines are seconds of its time.
    """

    def __init__(self) -> None:
        self._open: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, timeout: asyncio.Timeout, deadline: float) -> None:
        """Let it expire then, unless it is forgotten before."""
        self._open[timeout] = deadline
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._look)

    def forget(self, timeout: asyncio.Timeout) -> None:
        """It is over, one way or the other."""
        self._open.pop(timeout, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for timeout, deadline in list(self._open.items()):
            if deadline > now:
                self._timer = loop.call_at(deadline, self._look)
                break
            del self._open[timeout]
            timeout.reschedule(deadline)

    def close(self) -> None:
        """Nothing more will be watched, and what is still open never expires."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
