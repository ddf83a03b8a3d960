"""One timer for all attempts: where each may take as long as any other, the first to begin is the first to be late.

A timer for each would be made and cancelled for every row, at some 4 % of what a row costs; and `asyncio.timeout`,
which does the same for one block of code, takes a hundred steps of Python where these take forty.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_current_task = cast("Callable[[asyncio.AbstractEventLoop], asyncio.Task[object]]", asyncio.current_task)
"""`asyncio.current_task` without its None: who watches is always a task."""


class Deadline:
    """The moment by which something that a task does must be over: else the task is cancelled, once.

    Whoever meets a cancellation asks `ends_it`, as `asyncio.timeout` would: another one may have come from elsewhere.
    """

    __slots__ = ("_before", "_expired", "_task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._before = task.cancelling()
        self._expired = False

    def expire(self) -> None:
        """It has passed."""
        self._task.cancel()
        self._expired = True

    def ends_it(self) -> bool:
        """True where it was the deadline that cancelled the task, and nothing else; that is taken back then."""
        if not self._expired:
            return False
        self._expired = False
        return self._task.uncancel() <= self._before


class Deadlines:
    """Lets deadlines expire in their time. They ascend: `watch` in that order.

    Make it inside a running event loop, to which all of it belongs; moments are seconds of its time.
    """

    def __init__(self) -> None:
        # Asked for once: up to CPython 3.11 that is a call of the system, and so is asking for the task without it.
        self.loop = asyncio.get_running_loop()
        """Its time is what moments are given in."""
        self._open: dict[Deadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, moment: float) -> Deadline:
        """What the current task does must be over then, unless it is forgotten before."""
        deadline = Deadline(_current_task(self.loop))
        self._open[deadline] = moment
        if self._timer is None:
            self._timer = self.loop.call_at(moment, self._look)
        return deadline

    def forget(self, deadline: Deadline) -> None:
        """It is over, one way or the other; a cancellation that came too late is taken back."""
        self._open.pop(deadline, None)
        deadline.ends_it()

    def _look(self) -> None:
        now, self._timer = self.loop.time(), None
        for deadline, moment in list(self._open.items()):
            if moment > now:
                self._timer = self.loop.call_at(moment, self._look)
                break
            del self._open[deadline]
            deadline.expire()

    def close(self) -> None:
        """Nothing more will be watched, and what is still open never expires."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
