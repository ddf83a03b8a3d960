"""What engine and agenda keep together: no user gets more than a share of MoEngage's limits, and nobody else waits."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.config import Rate, Retry
from moe_bulk.engine import ROOM
from moe_bulk.errors import Interrupted, RunStopped, ServiceUnavailable
from moe_bulk.outcome import Status
from moe_bulk.users import BUCKETS, UserLimits
from tests.builders import (
    ACCEPTED,
    BROKEN,
    SILENCE,
    Exchange,
    Machine,
    Service,
    busiest,
    busiest_possible,
    collect,
    deliver,
    engine_on,
    feed,
    numbers,
    record,
)
from tests.effort import examples
from tests.test_engine_window import MISHAPS, WEATHERS, Weather, disturb, reach
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from moe_bulk.outcome import Outcome, Result
    from moe_bulk.record import Record


def of_one_user(count: int, start: int = 0) -> list[Record]:
    """Give rows of one user that share no lane."""
    return [record(number, customer_id="hot") for number in range(start, start + count)]


def few(limit: int, per: float = 60.0) -> UserLimits:
    """Give a limit that a test can reach."""
    return UserLimits((Rate(limit, per),), percent=100)


def by_user(exchanges: list[Exchange]) -> dict[str, list[Exchange]]:
    """Sort requests by whom they were for."""
    found = defaultdict(list)
    for exchange in exchanges:
        found[exchange.record.device.customer_id].append(exchange)
    return found


def test_a_hot_user_among_others() -> None:
    """12,000 rows of one user at the front go in order and as fast as allowed; the other users' go past them.

    At 10,000 a minute, of which a user may get 4,500, the others' 2,000 rows are sent in the first minute. The hot
    user's are sent in two bursts of 9,000 in 5 minutes, each window a bucket longer than it has to be.
    """
    limits = UserLimits()

    async def main() -> Service:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, rate=Rate(10_000, 60.0), limits=limits) as engine:
            cell = engine._users.cell
            others = [record(number) for number in range(12_000, 14_000) if cell(f"u-{number}") != cell("hot")]
            rows = of_one_user(12_000) + others
            assert len(rows) == len(await deliver(engine, rows))
        return service

    exchanges = by_user(run_virtually(main).exchanges)
    hot = exchanges.pop("hot")
    assert list(range(12_000)) == [exchange.number for exchange in hot]
    for rate in limits.ours[:2]:
        spans = [reach(exchange) for exchange in hot]
        assert 0.98 * rate.limit <= busiest_possible(spans, rate.per) <= rate.limit
    assert max(exchange.sent for each in exchanges.values() for exchange in each) < 61
    assert hot[-1].sent < 300 * (1 + 2 / BUCKETS) + 60


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(st.builds(Rate, st.integers(1, 30), st.floats(1, 60)), min_size=1, max_size=3),
    WEATHERS,
    MISHAPS,
    st.integers(1, 5),
)
def test_no_user_ever_gets_more(
    rates: list[Rate], weather: Weather, mishaps: list[tuple[float, str, float]], users: int
) -> None:
    """Over random limits, latencies, stalls, timeouts, retries, 429s, aborts and machines that stand still.

    For each user and each limit: no closed window of its length holds more than the limit's share of requests sent, nor
    of requests that can have arrived in it (see `test_no_window_ever_holds_more`). And nothing hangs: all rows are
    settled unless something has stopped the run, and a user's rows leave in the order of the input.
    """
    limits = UserLimits(tuple(rates), percent=90)
    rows = [record(number, customer_id=f"u-{number * number % users}") for number in range(60)]
    results: list[Result] = []

    async def main() -> tuple[list[Exchange], bool]:
        machine, draw = Machine(), random.Random(weather.seed).random
        service = Service(machine.now, weather.plan())
        retry = Retry(tries=4, free_tries=12, outage_limit=120.0)
        stopped = False
        try:
            async with engine_on(service, machine.clock, retry=retry, draw=draw, limits=limits) as engine:
                disturbing = asyncio.create_task(disturb(machine, engine._flights.abort, mishaps))
                try:
                    await deliver(engine, rows, results)
                finally:
                    disturbing.cancel()
        except RunStopped:
            stopped = True
        return service.exchanges, stopped

    exchanges, stopped = run_virtually(main)
    assert stopped or list(range(60)) == sorted(numbers(results))
    for requests in by_user(exchanges).values():
        first_tries = list(dict.fromkeys(exchange.number for exchange in requests))
        assert sorted(first_tries) == first_tries
        for rate in limits.ours:
            assert busiest([exchange.sent for exchange in requests], rate.per) <= rate.limit
            assert busiest_possible([reach(exchange) for exchange in requests], rate.per) <= rate.limit


def test_every_attempt_counts() -> None:
    """A retry takes as much of its user's limit as a first try."""

    async def main() -> list[float]:
        machine = Machine()
        tries = Counter[int]()

        def plan(exchange: Exchange) -> tuple[float, Outcome]:
            tries[exchange.number] += 1
            return 0.1, BROKEN if tries[exchange.number] < 3 else ACCEPTED

        service = Service(machine.now, plan)
        async with engine_on(service, machine.clock, limits=few(5)) as engine:
            assert 4 == len(await deliver(engine, of_one_user(4)))
        return service.sent

    sent = run_virtually(main)
    assert (12, 5) == (len(sent), busiest(sent, 60.0))


def test_streams_share_a_user_s_limit() -> None:
    """Two streams with rows of one user send no more than one of them could."""

    async def main() -> list[float]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, limits=few(5)) as engine:
            await asyncio.gather(*[deliver(engine, of_one_user(6, start)) for start in (0, 100)])
        return service.sent

    sent = run_virtually(main)
    assert (12, 5) == (len(sent), busiest(sent, 60.0))


def test_rows_held_back_take_no_room_until_too_many_are() -> None:
    """Behind more of one user's rows than a stream has room for, others are read and sent; at the bound reading waits.

    What the stream has room for may have been read by then, and no more. When the user has room again reading goes on,
    and all are sent.
    """
    hot, room = ROOM * 2, ROOM + 2 * 10

    async def main() -> tuple[int, int, int, list[int]]:
        machine = Machine()
        service = Service(machine.now)
        rows = [*of_one_user(hot), record(hot), *of_one_user(3 * ROOM, hot + 1), record(9999)]
        async with engine_on(service, machine.clock, in_flight=10, limits=few(ROOM)) as engine:
            engine.agenda.lanes.max_parked = ROOM + 500
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, rows))
            collecting = asyncio.create_task(collect(channel))
            await asyncio.sleep(50)
            sent, parked = list(service.order), engine.agenda.lanes.parked
            done = numbers(await collecting)
            await feeding
        assert sorted(done) == sorted(row.position.line for row in rows)
        return sent.count(hot), sent.count(9999), parked, service.order

    other, waits, parked, order = run_virtually(main)
    assert (1, 0) == (other, waits)
    assert ROOM + 500 <= parked <= ROOM + 500 + room
    hot_order = [number for number in order if number not in (hot, 9999)]
    assert (5 * ROOM, hot_order) == (len(hot_order), sorted(hot_order))


def test_a_stream_of_nothing_but_held_back_rows_is_read_on() -> None:
    """Nothing of it settles, and yet it hears that it may put in more: the row behind them is sent."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, in_flight=10, limits=few(1, 3600.0)) as engine:
            await deliver(engine, of_one_user(1))
            held = asyncio.create_task(deliver(engine, [*of_one_user(ROOM + 50, start=1), record(9999)]))
            await asyncio.sleep(10)
            held.cancel()
            await asyncio.wait([held])
        return service.order

    assert [0, 9999] == run_virtually(main)


def test_another_stream_reads_on_when_held_back_rows_go() -> None:
    """A stream that waits because too many of another's rows are held back is woken by the first that goes."""

    async def main() -> tuple[list[int], bool]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (3.0, ACCEPTED))
        async with engine_on(service, machine.clock, limits=few(1)) as engine:
            engine.agenda.lanes.max_parked = 3
            filling = asyncio.create_task(deliver(engine, of_one_user(4)))
            await asyncio.sleep(1)
            async with asyncio.timeout(70):
                other = await deliver(engine, [record(50)])
            waited = not filling.done()
            filling.cancel()
            await asyncio.wait([filling])
        return numbers(other), waited

    assert ([50], True) == run_virtually(main)


def test_a_stop_while_rows_are_held_back() -> None:
    """Whoever waits for a user's room at the gate is told of the stop at once."""

    async def main() -> tuple[int, float]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, limits=few(5, 3600.0)) as engine:
            delivering = asyncio.create_task(deliver(engine, of_one_user(20)))
            await asyncio.sleep(30)
            engine.stop(Interrupted("enough"))
            with pytest.raises(Interrupted):
                await delivering
            parked = engine.agenda.lanes.parked + len(engine.agenda.lanes)
        return len(service.exchanges) + parked, machine.now()

    sent, over = run_virtually(main)
    assert (5, True) == (sent, over < 31)


def test_a_stream_that_is_left_takes_its_held_back_rows_along() -> None:
    """They keep no other stream from reading, and no row with the same token from going."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, limits=few(1, 3600.0)) as engine:
            engine.agenda.lanes.max_parked = 3
            rows = [record(number, customer_id="hot", push_id=f"token {number}") for number in range(9)]
            stuck = asyncio.create_task(deliver(engine, rows))
            await asyncio.sleep(1)
            other = asyncio.create_task(deliver(engine, [record(50, push_id="token 1")]))
            await asyncio.sleep(1)
            assert not other.done()
            stuck.cancel()
            await asyncio.wait([stuck])
            async with asyncio.timeout(10):
                return numbers(await other)

    assert [50] == run_virtually(main)


def test_an_outage_while_rows_are_held_back() -> None:
    """Probes count for their user, too, and wait for room; each is another record; in the end all are delivered."""
    back_at = 300.0

    async def main() -> tuple[list[Result], Service]:
        machine = Machine()

        def plan(exchange: Exchange) -> tuple[float, Outcome]:
            return 0.1, ACCEPTED if exchange.sent >= back_at else SILENCE

        service = Service(machine.now, plan)
        async with engine_on(service, machine.clock, limits=few(22)) as engine:
            return await deliver(engine, of_one_user(60)), service

    results, service = run_virtually(main)
    assert {Status.ACCEPTED} == {result.status for result in results}
    assert 60 == len(results)
    assert busiest_possible([reach(exchange) for exchange in service.exchanges], 60.0) <= 22
    down = [exchange for exchange in service.exchanges if exchange.sent < back_at]
    probes = [exchange.number for exchange in down if exchange.sent > down[19].over + 0.5]
    assert len(probes) > 5
    assert all(before != after for before, after in pairwise(probes))


def test_an_outage_that_lasts_too_long_while_rows_are_held_back() -> None:
    """The run stops although the probes have to wait for their user's room."""

    async def main() -> float:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.1, BROKEN))
        retry = Retry(outage_limit=300.0)
        async with engine_on(service, machine.clock, retry=retry, limits=few(21)) as engine:
            with pytest.raises(ServiceUnavailable):
                await deliver(engine, of_one_user(40))
        return service.sent[-1]

    assert 300 <= run_virtually(main) < 400
