"""Wait until something has happened."""

from __future__ import annotations

import asyncio

import pytest

from moe_bulk.bell import SHORTEST_WAIT, Bell
from tests.virtual import run_virtually


def test_a_ring_wakes_all_who_wait() -> None:
    """Everybody who waits at that moment looks again, and a ring more does no harm."""

    async def main() -> tuple[str, str]:
        bell = Bell()
        waiting = [asyncio.create_task(bell.wait()) for _ in range(3)]
        await asyncio.sleep(1)
        before = repr(bell)
        bell.ring()
        bell.ring()
        await asyncio.gather(*waiting)
        return before, repr(bell)

    assert ("<Bell: 3 waiting>", "<Bell: 0 waiting>") == run_virtually(main)


@pytest.mark.parametrize(("seconds", "expected"), [(5.0, 5.0), (0.0, SHORTEST_WAIT), (-1.0, SHORTEST_WAIT)])
def test_a_wait_ends_by_itself(seconds: float, expected: float) -> None:
    """Whoever says how long waits no longer, and never shorter than the loop's timers can tell."""

    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await Bell().wait(seconds)
        return asyncio.get_running_loop().time() - began

    assert expected == pytest.approx(run_virtually(main), abs=1e-4)


def test_a_ring_before_the_wait_is_forgotten() -> None:
    """Nobody is woken by what had happened before they looked."""

    async def main() -> float:
        bell = Bell()
        bell.ring()
        began = asyncio.get_running_loop().time()
        await bell.wait(2.0)
        return asyncio.get_running_loop().time() - began

    assert 2.0 == pytest.approx(run_virtually(main), abs=1e-4)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """Neither a waiter nor a timer stays when the one who waited was cancelled, a ring in between or not."""

    async def main() -> str:
        bell = Bell()
        waiting = asyncio.create_task(bell.wait(60))
        await asyncio.sleep(0)
        waiting.cancel()
        bell.ring()
        await asyncio.wait([waiting])
        return repr(bell)

    assert "<Bell: 0 waiting>" == run_virtually(main)
