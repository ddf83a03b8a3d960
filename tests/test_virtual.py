"""The event loop that the other tests trust: time passes only when everybody waits, and costs nothing."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from aiolimiter import AsyncLimiter

from tests import virtual
from tests.virtual import VirtualLoop, run_virtually


def test_an_hour_takes_no_time() -> None:
    """A long sleep advances the virtual clock by just that; were it slept for real, no test would end."""

    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - began

    assert 3600 == pytest.approx(run_virtually(main), abs=0.01)


def test_timers_fire_in_order() -> None:
    """Who sleeps shorter wakes up earlier, whoever fell asleep first."""

    async def main() -> list[float]:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append(seconds)

        await asyncio.gather(*map(sleeper, (3.0, 1.0, 2.0)))
        return woken

    assert [1.0, 2.0, 3.0] == run_virtually(main)


def test_another_thread_can_wake_it_up() -> None:
    """Work in a thread is waited for in real time, even when no timer is set."""

    async def main() -> str:
        await asyncio.to_thread(time.sleep, 0.05)
        return "done"

    assert "done" == run_virtually(main)


def test_a_thread_at_work_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread works the clock does not run away, however many timers there are."""
    monkeypatch.setattr(virtual, "PATIENCE", 60.0)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        for second in range(1, 10):
            loop.call_later(second, lambda: None)
        await anyio.to_thread.run_sync(time.sleep, 0.05)
        return loop.time()

    assert 1 > run_virtually(main)


def test_a_deadlock_is_reported() -> None:
    """A loop in which nothing can happen any more raises instead of hanging."""
    loop = VirtualLoop()
    stuck = loop.create_task(asyncio.Event().wait())
    with pytest.raises(RuntimeError, match="deadlock"):
        loop.run_until_complete(stuck)
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(stuck)
    loop.close()


def test_a_limiter_of_others_runs_on_it() -> None:
    """Timers that are rounded to "now" do not make it spin for ever: aiolimiter comes to its end, at its own pace."""

    async def main() -> float:
        limiter = AsyncLimiter(7, 0.3)
        for _ in range(700):
            await limiter.acquire()
        return asyncio.get_running_loop().time()

    assert 693 * 0.3 / 7 == pytest.approx(run_virtually(main), rel=0.01)
