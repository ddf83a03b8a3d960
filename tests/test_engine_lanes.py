"""A hot device: thousands of rows of one device slow nobody else, and take no more memory than is allowed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from moe_bulk.config import Rate
from moe_bulk.engine import DRAIN_SECONDS, Engine
from moe_bulk.lanes import MAX_PARKED, MAX_PARKED_BYTES
from moe_bulk.outcome import Status
from tests.builders import (
    ACCEPTED,
    BROKEN,
    Exchange,
    Looker,
    Machine,
    Service,
    collect,
    deliver,
    engine_on,
    feed,
    record,
)
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.agenda import Entry
    from moe_bulk.outcome import Outcome, Result
    from moe_bulk.record import Record

HOT = 10_000


def hot(count: int, first: int = 0) -> list[Record]:
    """Give so many rows of one device."""
    return [record(number, customer_id="u", device_id="hot") for number in range(first, first + count)]


def strangers(count: int) -> list[Record]:
    """Give so many rows that share nothing."""
    return [record(number) for number in range(HOT, HOT + count)]


def sent_by(rows: list[Record], seconds: float) -> list[float]:
    """Deliver rows for so long; give when those of strangers were sent."""

    async def main() -> list[float]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, rate=Rate(6000, 60.0)) as engine:
            delivering = asyncio.create_task(deliver(engine, rows))
            await asyncio.sleep(seconds)
            delivering.cancel()
            await asyncio.wait([delivering])
        return [exchange.sent for exchange in service.exchanges if exchange.number >= HOT]

    sent: list[float] = run_virtually(main)
    return sent


def test_a_hot_device_slows_no_stranger() -> None:
    """Behind ten thousand rows of one device the others are sent as if it had one row for each of its answers."""
    alone, beside = sent_by(strangers(300), 10.0), sent_by([*hot(HOT), *strangers(300)], 10.0)
    assert 300 == len(alone) == len(beside)
    answers = beside[-1] / 0.3 + 1
    # Reading 10,000 rows takes 10,000 turns of the virtual loop, a microsecond each; each hot row takes one of 100/s.
    assert all(late <= early + 0.05 + answers / 100 for early, late in zip(alone, beside, strict=True))


def test_a_hot_device_arrives_in_order_through_failures() -> None:
    """Two thousand rows of one device, each failing once in seven times, arrive one by one in the file's order."""

    async def main() -> tuple[list[Result], list[Exchange]]:
        machine, counted = Machine(), iter(range(1_000_000))

        def plan(_: Exchange) -> tuple[float, Outcome]:
            return 0.02, BROKEN if next(counted) % 7 == 0 else ACCEPTED

        service = Service(machine.now, plan)
        async with engine_on(service, machine.clock) as engine:
            results = await deliver(engine, hot(2000))
        return results, service.exchanges

    results, exchanges = run_virtually(main)
    assert [(number, Status.ACCEPTED) for number in range(2000)] == [
        (result.position.line, result.status) for result in results
    ]
    order = [exchange.number for exchange in exchanges]
    assert sorted(order) == order
    assert 1 == max(sum(one.sent <= other.sent < one.over for other in exchanges[:50]) for one in exchanges[:50])


def test_reading_stops_at_the_bounds_of_parked_rows() -> None:
    """Of rows without end for one device so many are read as 64 MB or 100,000 rows allow."""

    async def main() -> tuple[int, int, int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (20.0, ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, hot(60_000)))
            await asyncio.sleep(10)
            lanes = engine.agenda.lanes
            found = lanes.parked, lanes.parked_bytes, engine.room
            assert not feeding.done()
            engine.leave(channel)
            await asyncio.wait([feeding])
            await asyncio.sleep(DRAIN_SECONDS + 1)  # the first of them is waited for
            assert 0 == lanes.parked == lanes.parked_bytes
        return found

    parked, size, engine_room = run_virtually(main)
    assert HOT < parked <= MAX_PARKED
    # those that were put in together with the last one may be too many
    assert MAX_PARKED_BYTES <= size <= MAX_PARKED_BYTES + 2000 * engine_room


def test_strangers_read_before_the_bound_are_sent_while_reading_waits() -> None:
    """A channel that waits for room in the lanes goes on sending and settling what it has read."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (1.0 if exchange.number < HOT else 0.1, ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            engine.agenda.lanes.max_parked = 100
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, [*hot(50), *strangers(200), *hot(100, first=50)]))
            await asyncio.sleep(4)
            settled = [result.position.line for result in await channel.receive()]
            rest = [result.position.line for result in await collect(channel)]
            await feeding
        assert list(range(150)) == [number for number in settled + rest if number < HOT]
        return settled

    settled = run_virtually(main)
    assert 200 == sum(number >= HOT for number in settled)


@pytest.mark.parametrize("said", [Engine.unchanged, Engine.give_back])
def test_a_row_behind_one_that_need_not_be_sent_goes_at_once(said: Callable[[Engine, Entry], None]) -> None:
    """It may be another stream's, which asks nobody: whoever waits for something to send hears of it."""

    async def main() -> list[int]:
        machine = Machine()
        service, looker = Service(machine.now), Looker()
        async with engine_on(service, machine.clock) as engine:
            asking, other = engine.open(screen=looker), engine.open()
            await asyncio.sleep(1)
            for number, channel in enumerate((asking, other)):
                channel.put(record(number, customer_id="u", device_id="d"))
            await asyncio.sleep(1)
            said(engine, *looker.asked)
            await asyncio.sleep(1)
            return list(service.order)

    assert [1] == run_virtually(main)
