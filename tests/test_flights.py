"""Requests on their way: counted from their beginning to their end, and told to end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moe_bulk.agenda import Entry
from moe_bulk.flights import Flights
from tests.builders import record
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Sender:
    """What the flights need to know of a stream."""

    on_their_way: int = 0
    halted: bool = False
    woken: list[int] = field(default_factory=list)

    def wake(self) -> None:
        """Note how many were on their way."""
        self.woken.append(self.on_their_way)


async def flight(flights: Flights, sender: Any, said: list[str]) -> None:
    """Wait for ever; say why that ended."""
    entry, task = Entry(record(len(said)), sender), asyncio.current_task()
    assert task is not None
    flights.begin(entry, task)
    try:
        await asyncio.sleep(1e9)
    except asyncio.CancelledError:
        said.append("ours" if flights.was_told_to_end(entry) else "theirs")
    finally:
        flights.end(entry)
    said.append(f"{task.cancelling()} left")


def after(*steps: Callable[[Flights, Sender, asyncio.Task[None]], object]) -> tuple[list[str], Sender, int, int]:
    """What became of one flight and of another stream's, and how many there were before and after."""

    async def main() -> tuple[list[str], Sender, int, int]:
        flights, sender, other, said = Flights(), Sender(), Sender(), list[str]()
        tasks = [asyncio.create_task(flight(flights, each, said)) for each in (sender, other)]
        await asyncio.sleep(0)
        before = len(flights), sender.on_their_way, other.on_their_way
        assert (2, 1, 1) == before
        for step in steps:
            step(flights, sender, tasks[0])
        await asyncio.sleep(0)
        assert (0, 1) == (sender.on_their_way, other.on_their_way)
        found = list(said), sender, len(flights), len(flights._aborted)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        return found

    found: tuple[list[str], Sender, int, int] = run_virtually(main)
    return found


def test_one_stream_alone_is_told_to_end() -> None:
    """Its task goes on as if nobody had cancelled it; telling it twice is telling it once."""
    told = after(lambda flights, sender, _: flights.abort(sender), lambda flights, sender, _: flights.abort(sender))  # type: ignore[arg-type]
    assert (["ours", "0 left"], Sender(), 1, 0) == told


def test_somebody_elses_cancellation_is_not_ours() -> None:
    """Neither alone nor beside our own: the task as a whole is meant, and stays cancelled once."""
    assert (["theirs", "1 left"], Sender(), 1, 0) == after(lambda _flights, _sender, task: task.cancel())
    both = after(lambda flights, sender, _: flights.abort(sender), lambda _flights, _sender, task: task.cancel())  # type: ignore[arg-type]
    assert (["theirs", "1 left"], Sender(), 1, 0) == both


def test_a_halted_stream_is_woken_as_its_requests_end() -> None:
    """It waits for what is on its way."""

    def halt(flights: Flights, sender: Sender, _: object) -> None:
        sender.halted = True
        flights.abort(sender)  # type: ignore[arg-type]

    assert Sender(halted=True, woken=[0]) == after(halt)[1]
