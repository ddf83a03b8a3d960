"""What comes at nearly the same time is done in one go, one callback of the event loop later.

Between two answers, or two requests, the program runs through TLS, the kernel and all else, which push each other out
of the processor's caches. Where the same is done for several of them one behind the other, that is paid once for all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Together(Generic[T]):
    """Collects what is `put`, and gives `work` all of it when the callbacks have run that were due as the first came.

    `work` is called in a callback of the event loop, or by whoever calls `do_now`, and must not raise.
    """

    def __init__(self, work: Callable[[list[T]], None]) -> None:
        self._work = work
        self._items: list[T] = []

    def put(self, item: T) -> None:
        """Add one behind the others; nothing is done within this call."""
        if not self._items:
            asyncio.get_running_loop().call_soon(self.do_now)
        self._items.append(item)

    def do_now(self) -> None:
        """Do what has come so far, without waiting any longer."""
        if self._items:
            items, self._items = self._items, []
            self._work(items)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._items)
