"""One at a time: whoever comes while nobody stands there goes through at once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from moe_bulk.gate import Gate
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def _standing(gate: Gate) -> AsyncIterator[None]:
    await gate.enter()
    try:
        yield
    finally:
        gate.leave()


async def _stand(gate: Gate, name: str, seconds: float, seen: list[str]) -> None:
    async with _standing(gate):
        seen.append(name)
        await asyncio.sleep(seconds)
        seen.append(f"{name} left")


def test_only_one_stands_there() -> None:
    """All others wait until it has left, and the one that waited longest is next."""

    async def main() -> tuple[list[str], str]:
        gate, seen = Gate(), list[str]()
        tasks = [asyncio.create_task(_stand(gate, name, 1.0, seen)) for name in "abc"]
        await asyncio.sleep(0.5)
        shown = repr(gate)
        await asyncio.gather(*tasks)
        return seen, shown

    assert (["a", "a left", "b", "b left", "c", "c left"], "<Gate taken, 2 waiting>") == run_virtually(main)


def test_whoever_comes_while_it_is_free_need_not_wait() -> None:
    """One that was woken and has not looked yet keeps nobody waiting: that is what a lock convoy is made of."""

    async def main() -> tuple[list[str], str]:
        gate, seen = Gate(), list[str]()
        async with _standing(gate):
            waiting = asyncio.create_task(_stand(gate, "woken", 0.0, seen))
            await asyncio.sleep(0)
        async with _standing(gate):
            seen.append("came later")
        await waiting
        return seen, repr(gate)

    assert (["came later", "woken", "woken left"], "<Gate free, 0 waiting>") == run_virtually(main)


@pytest.mark.parametrize("leaves_first", [True, False])
def test_one_that_is_cancelled_while_it_waits_keeps_nobody(leaves_first: bool) -> None:  # noqa: FBT001  two cases
    """Whether it was cancelled before or after it was woken, the next one is let through."""

    async def main() -> tuple[list[str], str]:
        gate, seen = Gate(), list[str]()
        await gate.enter()
        first, second = (asyncio.create_task(_stand(gate, name, 0.0, seen)) for name in ("first", "second"))
        await asyncio.sleep(0)
        if leaves_first:
            gate.leave()
            first.cancel()
        else:
            first.cancel()
            gate.leave()
        await second
        return seen, repr(gate)

    assert (["second", "second left"], "<Gate free, 0 waiting>") == run_virtually(main)


def test_one_that_is_cancelled_is_forgotten() -> None:
    """It is not counted among those that wait."""

    async def main() -> str:
        gate = Gate()
        async with _standing(gate):
            waiting = asyncio.create_task(_stand(gate, "a", 0.0, []))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            return repr(gate)

    assert "<Gate taken, 0 waiting>" == run_virtually(main)


def test_an_error_within_lets_the_next_one_through() -> None:
    """Whatever happens behind it, it is free again."""

    async def main() -> list[str]:
        gate, seen = Gate(), list[str]()
        with pytest.raises(ValueError, match="mine"):
            async with _standing(gate):
                raise ValueError("mine")
        await _stand(gate, "a", 0.0, seen)
        return seen

    assert ["a", "a left"] == run_virtually(main)
