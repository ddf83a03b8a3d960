"""A thread of one's own: calls one after the other, their results and exceptions, cancellations, its end."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio.to_thread
import pytest

from moe_bulk.intake.own_thread import OwnThread

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

NAME = "a thread of these tests"


@pytest.fixture
def anyio_backend() -> str:
    """Its futures are asyncio's."""
    return "asyncio"


def threads() -> list[threading.Thread]:
    """Those of these tests that live."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]


async def until(true: Callable[[], bool]) -> None:
    """Wait for it, for five seconds at most."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  threads set no event of asyncio's
            await asyncio.sleep(0.001)


async def test_calls_are_made_in_one_thread_and_in_their_order() -> None:
    """Each gives what it returns, or raises what it raises; the next one is none the worse for that."""
    thread, made = OwnThread(NAME), list[str]()

    def call(name: str) -> str:
        made.append(f"{name} in {threading.current_thread().name}")
        return name

    assert [] == threads()
    async with asyncio.TaskGroup() as tasks:
        several = [tasks.create_task(thread.call(lambda name=name: call(name))) for name in "abc"]  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        await thread.call(lambda: sys.exit(3))
    assert "d" == await thread.call(lambda: call("d"))
    assert list("abc") == [each.result() for each in several]
    assert [f"{name} in {NAME}" for name in "abcd"] == made
    assert 1 == len(threads())
    thread.end()
    await until(lambda: not threads())


async def test_a_call_goes_on_when_its_waiting_is_cancelled() -> None:
    """The next one waits for its end; nothing is told to whoever is gone."""
    thread, going_on, made = OwnThread(NAME), threading.Event(), list[str]()

    def first() -> None:
        going_on.wait(5)
        made.append("first")

    waiting = asyncio.create_task(thread.call(first))
    await until(lambda: bool(threads()))
    waiting.cancel()
    await asyncio.wait([waiting])
    second = asyncio.create_task(thread.call(lambda: made.append("second")))
    await asyncio.sleep(0.01)
    assert [] == made
    going_on.set()
    await second
    assert (["first", "second"], True) == (made, waiting.cancelled())
    thread.end()


async def test_what_was_handed_over_is_made_before_the_end() -> None:
    """And a second end, or one without a call, is nothing."""
    thread, made = OwnThread(NAME), list[str]()

    def call() -> None:
        time.sleep(0.01)
        made.append("made")

    OwnThread(NAME).end()
    calling = asyncio.create_task(thread.call(call))
    await asyncio.sleep(0)
    thread.end()
    thread.end()
    await calling
    assert ["made"] == made
    await until(lambda: not threads())


async def test_it_counts_among_the_threads_at_work() -> None:
    """While a call is made, and not behind it: also where nobody waits any more, and where all others are at work."""
    limiter, thread, going_on = anyio.to_thread.current_default_thread_limiter(), OwnThread(NAME), threading.Event()
    waiting = asyncio.create_task(thread.call(lambda: going_on.wait(5)))
    await until(lambda: bool(threads()))
    assert 1 == limiter.borrowed_tokens
    waiting.cancel()
    await asyncio.wait([waiting])
    assert 1 == limiter.borrowed_tokens
    before, limiter.total_tokens = limiter.total_tokens, 1
    second = asyncio.create_task(thread.call(lambda: "second"))
    await asyncio.sleep(0.01)
    assert not second.done()
    going_on.set()
    assert "second" == await second
    assert 0 == limiter.borrowed_tokens
    limiter.total_tokens = before
    thread.end()


async def test_it_keeps_nothing_of_what_it_made() -> None:
    """A batch of rows does not live until the next one comes."""

    class Batch:
        """Something that can be watched."""

    thread = OwnThread(NAME)
    batch = await thread.call(Batch)
    watched = weakref.ref(batch)
    await asyncio.sleep(0.01)
    del batch
    gc.collect()
    assert None is watched()
    thread.end()


def test_a_loop_that_is_gone_is_told_nothing() -> None:
    """The thread outlives a loop that was closed without waiting for it, and says nothing of that."""
    thread, going_on = OwnThread(NAME), threading.Event()

    async def leave() -> None:
        asyncio.create_task(thread.call(lambda: going_on.wait(5)))  # noqa: RUF006  it is left behind
        await until(lambda: bool(threads()))

    asyncio.run(leave())
    going_on.set()

    async def again() -> str:
        return await thread.call(lambda: "alive")

    assert "alive" == asyncio.run(again())
    assert all(each.daemon for each in threads())
    thread.end()


async def test_an_end_is_the_end() -> None:
    """A second thread might run beside the first one, which may still be at work."""
    thread = OwnThread(NAME)
    assert "made" == await thread.call(lambda: "made")
    thread.end()
    with pytest.raises(RuntimeError, match="was ended"):
        await thread.call(lambda: "not made")
    assert 0 == anyio.to_thread.current_default_thread_limiter().borrowed_tokens


async def test_a_thread_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody waits for it; the next call tries again."""
    thread = OwnThread(NAME)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            await thread.call(lambda: "not made")
    assert 0 == anyio.to_thread.current_default_thread_limiter().borrowed_tokens
    assert "made" == await thread.call(lambda: "made")
    thread.end()


async def test_what_no_future_can_hold_is_raised_all_the_same() -> None:
    """Nobody waits for ever because of it."""
    thread = OwnThread(NAME)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await thread.call(lambda: next(iter(())))
    thread.end()


async def test_calls_have_the_context_of_their_caller() -> None:
    """Tracing and the like reach what reads the rows."""
    traced: ContextVar[int] = ContextVar("traced", default=0)
    thread = OwnThread(NAME)
    assert 0 == await thread.call(traced.get)
    traced.set(5)
    assert 5 == await thread.call(traced.get)
    thread.end()
