"""A thread of one's own for calls that block: handing one over costs a quarter of what it costs with a pool of threads.

That is worth a room, because rows are read by the hundred, and each hundred is handed over.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class OwnThread:
    """Makes calls one after the other, in the order in which they are handed over; begins with the first of them.

    A call goes on when whoever awaits it is cancelled. It counts among the threads that anyio lets work at a time, so
    that those who look there see it. The thread is a daemon: where nobody ends it, it keeps no process alive.
    """

    def __init__(self, name: str) -> None:
        self.ended = False
        self._name = name
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[], T]) -> T:
        """Make a call there, with the caller's context; returns what it returns, and raises what it raises."""
        limiter = anyio.to_thread.current_default_thread_limiter()
        call = _Call(work, asyncio.get_running_loop(), limiter)
        try:
            limiter.acquire_on_behalf_of_nowait(call)
        except anyio.WouldBlock:
            await limiter.acquire_on_behalf_of(call)
        try:
            self._start()
        except BaseException:
            limiter.release_on_behalf_of(call)
            raise
        self._calls.put(call)
        return await call.result

    def _start(self) -> None:
        if self.ended:
            raise RuntimeError(f"the thread {self._name!r} was ended")
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def end(self) -> None:
        """End the thread when the calls are made that were handed over; it takes no more."""
        if not self.ended:
            self.ended = True
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call.make()
            del call  # and with it what came of it: nobody knows when the next one comes


class _Call(Generic[T]):
    """A call on its way to the thread, and what comes of it on its way back."""

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop, limiter: anyio.CapacityLimiter) -> None:
        self.result: asyncio.Future[T] = loop.create_future()
        self._work = work
        self._context = copy_context()
        self._loop = loop
        self._limiter = limiter

    def make(self) -> None:
        """In the thread: make the call, and let the loop know."""
        try:
            returned = self._context.run(self._work)
        except StopIteration as error:  # no future takes that: whoever awaits would seem to have ended
            self._tell(self.result.set_exception, RuntimeError(f"the call raised {error!r}"))
        except BaseException as error:  # noqa: BLE001  whatever it is, it is the caller's
            self._tell(self.result.set_exception, error)
        else:
            self._tell(self.result.set_result, returned)

    def _tell(self, settle: Callable[[Any], None], what: object) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._over, settle, what)

    def _over(self, settle: Callable[[Any], None], what: object) -> None:
        self._limiter.release_on_behalf_of(self)
        if not self.result.done():  # else whoever waited was cancelled
            settle(what)
