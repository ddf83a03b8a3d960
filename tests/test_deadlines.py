"""One timer for all attempts: each expires at its own moment, none that is over does, and no timer is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moe_bulk.deadlines import Deadlines
from tests.virtual import run_virtually

LIMIT = 30.0


async def attempt(deadlines: Deadlines, begins: float, takes: float) -> tuple[str, float]:
    """Wait until it begins, then for what it takes; what came of it, and when."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(begins)
    deadline = deadlines.watch(loop.time() + LIMIT)
    try:
        await asyncio.sleep(takes)
    except asyncio.CancelledError:
        if deadline.ends_it():
            return "late", loop.time()
        raise
    finally:
        deadlines.forget(deadline)
    return "in time", loop.time()


@pytest.mark.parametrize(
    "attempts",
    [
        [(0.0, 100.0)],
        [(0.0, 1.0)],
        [(0.0, 100.0), (0.0, 100.0), (0.0, 1.0), (10.0, 100.0), (29.0, 2.0), (45.0, 100.0), (46.0, 29.5)],
        [(0.0, 1.0), (5.0, 100.0), (200.0, 100.0), (300.0, 1.0), (400.0, 100.0)],
    ],
)
def test_each_expires_at_its_own_moment(attempts: list[tuple[float, float]]) -> None:
    """Whatever else began before it or since, and whatever was over by then."""

    async def main() -> list[tuple[str, float]]:
        deadlines = Deadlines()
        return await asyncio.gather(*(attempt(deadlines, *each) for each in attempts))

    found: list[tuple[str, float]] = run_virtually(main)
    expected = [("late" if takes > LIMIT else "in time", begins + min(takes, LIMIT)) for begins, takes in attempts]
    assert [what for what, _ in expected] == [what for what, _ in found]
    assert [at for _, at in expected] == pytest.approx([at for _, at in found], abs=0.01)


def test_thousands_take_one_timer() -> None:
    """It is for that alone that they are watched together."""

    async def main() -> int:
        loop: Any = asyncio.get_running_loop()
        deadlines = Deadlines()
        for _ in range(5_000):
            deadline = deadlines.watch(loop.time() + LIMIT)
            await asyncio.sleep(0)
            deadlines.forget(deadline)
        timers = len(loop._scheduled)
        deadlines.close()
        deadlines.close()
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]
        return timers

    assert 1 == run_virtually(main)


def test_a_cancellation_from_outside_is_no_timeout() -> None:
    """Although it comes as the deadline does."""

    async def main() -> tuple[bool, bool]:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        task = asyncio.create_task(attempt(deadlines, 0.0, 100.0))
        loop.call_later(LIMIT, task.cancel)
        await asyncio.wait([task])
        return task.cancelled(), bool(deadlines._open)

    assert (True, False) == run_virtually(main)


def test_one_that_cleans_up_slowly_holds_up_nobody() -> None:
    """Its timeout is expiring already when the next ones are looked at."""

    async def slow(deadlines: Deadlines) -> float:
        loop = asyncio.get_running_loop()
        deadline = deadlines.watch(loop.time() + LIMIT)
        try:
            try:
                await asyncio.sleep(100.0)
            finally:
                await asyncio.sleep(20.0)
        except asyncio.CancelledError:
            assert deadline.ends_it()
            return loop.time()
        finally:
            deadlines.forget(deadline)
        raise AssertionError

    async def main() -> tuple[float, list[tuple[str, float]]]:
        deadlines = Deadlines()
        first = asyncio.create_task(slow(deadlines))
        others = await asyncio.gather(*(attempt(deadlines, begins, 100.0) for begins in (1.0, 10.0, 40.0)))
        return await first, others

    first, others = run_virtually(main)
    assert pytest.approx(LIMIT + 20.0, abs=0.01) == first
    assert ["late"] * 3 == [what for what, _ in others]
    assert [31.0, 40.0, 70.0] == pytest.approx([at for _, at in others], abs=0.01)


def test_a_cancellation_that_was_there_before_is_left_alone() -> None:
    """What a task does while it is being cancelled may take as long as anything else, and no longer."""

    async def main() -> tuple[str, int]:
        deadlines, came = Deadlines(), asyncio.Event()

        async def work() -> tuple[str, int]:
            task = asyncio.current_task()
            assert task is not None
            came.set()
            try:
                await asyncio.sleep(1000.0)
            except asyncio.CancelledError:
                said, _ = await attempt(deadlines, 0.0, 100.0)
                return said, task.cancelling()
            raise AssertionError

        working = asyncio.create_task(work())
        await came.wait()
        working.cancel()
        return await working

    assert ("late", 1) == run_virtually(main)


@pytest.mark.parametrize("fails", [True, False])
def test_what_ends_in_another_way_as_its_deadline_comes_is_not_cancelled_any_more(*, fails: bool) -> None:
    """The cancellation is swallowed or replaced on the way: nobody finds it later."""

    async def main() -> tuple[int, str]:
        deadlines = Deadlines()
        task = asyncio.current_task()
        assert task is not None
        deadline = deadlines.watch(asyncio.get_running_loop().time() + LIMIT)
        said = ""
        try:
            try:
                await asyncio.sleep(100.0)
            except asyncio.CancelledError:
                if fails:
                    raise LookupError from None
        except LookupError:
            said = "failed"
        finally:
            deadlines.forget(deadline)
        await asyncio.sleep(1.0)
        return task.cancelling(), said

    assert (0, "failed" if fails else "") == run_virtually(main)


def test_another_cancellation_in_the_same_turn_goes_on() -> None:
    """Somebody else wants the task to end: that is not taken back, and no timeout."""

    async def main() -> tuple[bool, int]:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        deadline = deadlines.watch(loop.time() + LIMIT)
        loop.call_at(loop.time() + LIMIT, task.cancel)
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            found = deadline.ends_it(), task.cancelling()
            task.uncancel()
            return found
        raise AssertionError

    assert (False, 1) == run_virtually(main)
