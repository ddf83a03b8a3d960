"""An event loop on a virtual clock: it jumps to the next timer when nothing else is to do, so an hour costs nothing."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TICK = 1e-6
"""Each turn of the loop takes this long, or a timer rounded to "now" would spin for ever."""


PATIENCE = 0.01
"""Real seconds that a thread at work is given before the clock jumps on without it."""


class _JumpingSelector(selectors.SelectSelector):
    """Looks for events without waiting, and moves the clock on by the time that it was asked to wait."""

    now = 0.0
    threads: anyio.CapacityLimiter | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        working = self.threads is not None and self.threads.borrowed_tokens and timeout != 0
        ready = super().select(PATIENCE if working else 0)
        if not ready and timeout is None:
            ready = super().select(0.5)  # only another thread can wake this loop up
            if not ready:
                raise RuntimeError("the virtual loop waits for nothing: a deadlock")
        elif not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        self.now += TICK
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when everybody waits; a thread that works is waited for a little, in real time."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        """Give virtual seconds since the loop was made."""
        return self.selector.now


def run_virtually(main: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any:
    """Run `main` to its end on a virtual clock and return what it returns."""

    async def with_threads() -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.selector.threads = anyio.to_thread.current_default_thread_limiter()
        return await main(*args)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(with_threads())
