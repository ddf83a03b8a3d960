"""An event loop on a virtual clock: it jumps to the next timer when nothing else is to do, so an hour costs nothing."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TICK = 1e-6
"""Each turn of the loop takes this long, or a timer rounded to "now" would spin for ever."""


class _JumpingSelector(selectors.SelectSelector):
    """Looks for events without waiting, and moves the clock on by the time that it was asked to wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            ready = super().select(0.5)  # only another thread can wake this loop up
            if not ready:
                raise RuntimeError("the virtual loop waits for nothing: a deadlock")
        elif not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        self.now += TICK
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when everybody waits."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        """Give virtual seconds since the loop was made."""
        return self.selector.now


def run_virtually(main: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any:
    """Run `main` to its end on a virtual clock and return what it returns."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main(*args))
