"""Records in, one last word on each out: order, workers, retries, turns, outages."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.agenda import Entry
from moe_bulk.channel import RETRYING_ASIDE, Channel
from moe_bulk.config import Rate, Retry
from moe_bulk.engine import ROOM
from moe_bulk.errors import Interrupted, RunStopped, ServiceUnavailable
from moe_bulk.outcome import Outcome, Status, Verdict
from tests.builders import (
    ACCEPTED,
    BROKEN,
    REJECTED,
    SILENCE,
    ZERO,
    Exchange,
    Machine,
    Service,
    collect,
    deliver,
    engine_on,
    feed,
    numbers,
    record,
    records,
    throttled,
)
from tests.effort import examples
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from moe_bulk.outcome import Attempt, Result
    from moe_bulk.record import Record


@dataclass
class Story:
    """What came of a delivery."""

    service: Service
    results: list[Result] = field(default_factory=list)
    error: RunStopped | None = None

    @property
    def statuses(self) -> dict[int, Status]:
        """The last word on each row."""
        return {result.position.line: result.status for result in self.results}


def tell(
    rows: Sequence[Record],
    plan: Callable[[Exchange], tuple[float, Outcome]],
    *,
    rate: Rate | None = None,
    retry: Retry | None = None,
    in_flight: int = 64,
) -> Story:
    """Deliver rows over a network that does as planned."""

    async def main() -> Story:
        machine = Machine()
        story = Story(Service(machine.now, plan))
        try:
            async with engine_on(story.service, machine.clock, rate=rate, retry=retry, in_flight=in_flight) as engine:
                await deliver(engine, rows, story.results)
        except RunStopped as error:
            story.error = error
        return story

    story: Story = run_virtually(main)
    return story


def failing(
    times: dict[int, int], outcome: Outcome = BROKEN, seconds: float = 0.1
) -> Callable[[Exchange], tuple[float, Outcome]]:
    """Plan that some rows fail so many times before they are accepted."""
    left = Counter(times)

    def plan(exchange: Exchange) -> tuple[float, Outcome]:
        if left[exchange.number] <= 0:
            return seconds, ACCEPTED
        left[exchange.number] -= 1
        return seconds, outcome

    return plan


# --- the last word ---------------------------------------------------------------------------------------------------


def test_every_record_gets_one_result() -> None:
    """Each row is sent and settled once, with its answer's words."""
    story = tell(records(300), lambda exchange: (0.2, REJECTED if exchange.number % 3 == 0 else ACCEPTED))
    assert list(range(300)) == sorted(numbers(story.results)) == sorted(story.service.order)
    assert set(range(0, 300, 3)) == {number for number, status in story.statuses.items() if status is Status.REJECTED}


def test_attempts_are_told_with_their_times() -> None:
    """Each attempt's sending and duration stand in the result, on the boot clock and as epoch seconds."""
    story = tell([record(0)], failing({0: 1}, SILENCE, seconds=2.0))
    first, second = story.results[0].attempts
    assert [exchange.sent for exchange in story.service.exchanges] == [first.at, second.at]
    assert (ZERO + first.at, "timeout", None) == (first.sent, first.error, first.http_status)
    assert 2000.0 == pytest.approx(second.ms, abs=0.1)
    assert (200, None) == (second.http_status, second.error)
    assert (2, ZERO + story.service.exchanges[1].over) == (story.results[0].tries, story.results[0].settled_at)


def test_a_record_is_exhausted_after_its_tries() -> None:
    """Eight tries, then the last word; the others are none the worse for it."""
    story = tell(records(5), failing({2: 99}))
    assert {2: Status.EXHAUSTED} == {line: word for line, word in story.statuses.items() if word is not Status.ACCEPTED}
    assert 8 == story.service.order.count(2)


class Watching:
    """Writes down what it is told about requests."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def sent(self, at: float, *, again: bool) -> None:
        """A request leaves."""
        self.told.append(("sent again" if again else "sent", at))

    def answered(self, *attempts: Attempt) -> None:
        """They are over."""
        self.told += [("answered", attempt.http_status) for attempt in attempts]


def test_a_watcher_is_told_of_every_request() -> None:
    """It hears of each sending, and whether it is the row's first, and of each answer, as they happen."""

    async def main() -> tuple[list[tuple[str, object]], list[float]]:
        machine, watching = Machine(), Watching()
        service = Service(machine.now, failing({0: 1}))
        async with engine_on(service, machine.clock) as engine:
            channel = engine.open(watching)
            await feed(channel, [record(0)])
            await collect(channel)
        return watching.told, service.sent

    told, (first, second) = run_virtually(main)
    assert [("sent", first), ("answered", 503), ("sent again", second), ("answered", 200)] == told


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.05, 0.3, 2.0])
def test_as_many_in_flight_as_the_pace_needs(latency: float) -> None:
    """At 100 requests a second there are 100 times the latency on their way, and hardly more, though 500 may be."""
    story = tell(records(1500), lambda exchange: (latency, ACCEPTED), rate=Rate(6000, 60.0), in_flight=500)
    assert 100 * latency * 0.95 <= story.service.most_on_their_way <= 100 * latency * 1.1 + 3


def test_no_more_workers_than_requests() -> None:
    """There is one worker for each request that was ever on its way at a time, and one at the gate."""

    async def main() -> tuple[int, int]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, rate=Rate(6000, 60.0)) as engine:
            await deliver(engine, records(500))
            return engine._workers, service.most_on_their_way

    workers, most = run_virtually(main)
    assert most <= workers <= most + 1


@pytest.mark.parametrize("in_flight", [1, 2, 7])
def test_never_more_in_flight_than_allowed(in_flight: int) -> None:
    """However slow the service is, the limit of requests on their way holds, and is used."""
    story = tell(records(60), lambda exchange: (3.0, ACCEPTED), in_flight=in_flight)
    assert in_flight == story.service.most_on_their_way


def test_a_record_that_waits_holds_no_worker() -> None:
    """With one worker only, others are sent while a record waits two minutes for its next try."""
    plan = failing({0: 1}, throttled(120.0))
    story = tell(records(50), plan, in_flight=1)
    assert [*range(50), 0] == story.service.order
    assert story.service.sent[-2] < 10
    assert story.service.sent[-1] >= 120


# --- order -----------------------------------------------------------------------------------------------------------


def test_a_device_s_rows_arrive_in_order_through_retries() -> None:
    """The later row of a device waits until the earlier one is settled, whatever that takes; others do not wait."""
    rows = [record(number, customer_id="u", device_id="d") for number in range(3)] + [record(3)]
    story = tell(rows, failing({0: 3, 1: 1}))
    assert [0, 3, 0, 0, 0, 1, 1, 2] == story.service.order


@pytest.mark.parametrize("last", [Status.EXHAUSTED, Status.REJECTED])
def test_a_failed_row_lets_the_next_one_go(last: Status) -> None:
    """A row that came to nothing does not hold its lane for ever."""
    rows = [record(number, push_id="same token") for number in range(2)]
    story = tell(rows, failing({0: 99}, REJECTED if last is Status.REJECTED else BROKEN))
    assert {0: last, 1: Status.ACCEPTED} == story.statuses


def test_ten_thousand_rows_of_one_device_slow_no_other() -> None:
    """A long run of one device's rows at the front does not keep the others waiting."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now)
        rows = [record(number, customer_id="u", device_id="d") for number in range(10_000)]
        rows += [record(10_000 + number) for number in range(100)]
        results: list[Result] = []
        async with engine_on(service, machine.clock) as engine:
            delivering = asyncio.create_task(deliver(engine, rows, results))
            await asyncio.sleep(2)
            delivering.cancel()
            await asyncio.wait([delivering])
        return numbers(results)

    done = run_virtually(main)
    assert 100 == sum(number >= 10_000 for number in done)
    assert list(range(6)) == [number for number in done if number < 10_000][:6]


KEYS = st.fixed_dictionaries(
    {},
    optional={"device_id": st.sampled_from("ab"), "push_id": st.sampled_from("pq"), "moe_gaid": st.sampled_from("xy")},
)
OUTCOMES = (ACCEPTED, ACCEPTED, REJECTED, BROKEN, SILENCE, throttled(), throttled(3.0))


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(KEYS, max_size=25), st.integers(0, 2**32), st.integers(1, 8))
def test_any_rows_and_any_failures(rows: list[dict[str, str]], seed: int, in_flight: int) -> None:
    """Whatever shares keys and whatever fails: each row is settled once, and per key they are sent in input order.

    That means: of two rows with a common key, all requests of the earlier one are over before the first of the later.
    """
    made = [
        record(number, customer_id="u" if "device_id" in keys else None, **keys) for number, keys in enumerate(rows)
    ]
    chance = random.Random(seed)
    plan = lambda exchange: (chance.uniform(0, 2), chance.choice(OUTCOMES))  # noqa: E731  one expression
    story = tell(made, plan, in_flight=in_flight, retry=Retry(tries=4))
    assert list(range(len(rows))) == sorted(numbers(story.results))
    spans = defaultdict(list)
    for exchange in story.service.exchanges:
        keys = exchange.record.device.keys()
        for key in keys:
            spans[key].append((exchange.number, exchange.sent, exchange.over))
    for requests in spans.values():
        assert sorted(requests) == requests
        assert all(before[2] <= after[1] for before, after in pairwise(requests))


# --- back-pressure and turns -----------------------------------------------------------------------------------------


def test_a_slow_reader_slows_the_sending() -> None:
    """Without anybody reading results, no more rows are sent than the channel has room for."""

    async def main() -> tuple[int, int]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, in_flight=10) as engine:
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, records(3000)))
            await asyncio.sleep(600)
            sent = len(service.exchanges)
            got = len(await collect(channel))
            await feeding
        return sent, got

    assert (ROOM + 20, 3000) == run_virtually(main)


def test_rows_that_wait_to_be_tried_again_have_room_of_their_own() -> None:
    """A service that fails every other row does not keep the others from being read, until very many wait."""

    async def main() -> tuple[int, int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.1, BROKEN if exchange.number % 2 else ACCEPTED))
        retry = Retry(first_wait=600.0, longest_wait=600.0)
        async with engine_on(service, machine.clock, retry=retry, in_flight=10) as engine:
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, records(5000)))
            collecting = asyncio.create_task(collect(channel))
            await asyncio.sleep(100)
            waiting = engine.agenda.retrying
            await asyncio.sleep(100)
            sent = len(service.exchanges)
            engine.leave(channel)
            with suppress(Interrupted):
                await collecting
            await feeding
        return waiting, sent

    waiting, sent = run_virtually(main)
    assert RETRYING_ASIDE + ROOM + 20 == waiting
    assert 2 * waiting - 10 <= sent <= 2 * waiting + 10


def test_a_feeder_hears_of_the_room_that_a_row_to_be_tried_again_leaves() -> None:
    """Nothing settles meanwhile, so nobody else tells it."""

    async def main() -> int:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.1, throttled(50.0)))
        async with engine_on(service, machine.clock, in_flight=10) as engine:
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, records(5000)))
            await asyncio.sleep(10)
            engine.leave(channel)
            await feeding
        return channel._held

    assert ROOM + 20 < run_virtually(main)


def test_an_idle_worker_holds_no_record() -> None:
    """In an application that sends now and then, the last rows do not stay in memory."""

    async def main() -> tuple[int, int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (1.0, REJECTED if exchange.number % 2 else ACCEPTED))
        async with engine_on(service, machine.clock, in_flight=10) as engine:
            channel = engine.open()
            collecting = asyncio.create_task(collect(channel))
            await feed(channel, records(60))
            before = _entries_of(channel)
            await collecting
            await asyncio.sleep(1)
            return before, _entries_of(channel)

    assert (60, 0) == run_virtually(main)


def _entries_of(channel: Channel) -> int:
    gc.collect()
    return sum(type(each) is Entry and each.sender is channel for each in gc.get_objects())


def test_a_single_row_is_not_stuck_behind_a_stream() -> None:
    """Beside a stream with hundreds of rows ready, another stream's row is sent within a turn or two."""

    async def main() -> tuple[int, list[int]]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, rate=Rate(600, 60.0)) as engine:
            stream = asyncio.create_task(deliver(engine, records(1000)))
            await asyncio.sleep(5)
            before = len(service.exchanges)
            single = await deliver(engine, [record(5000)])
            after = service.order.index(5000)
            stream.cancel()
            await asyncio.wait([stream])
        return after - before, numbers(single)

    turns, single = run_virtually(main)
    assert ([5000], True) == (single, turns <= 2)


def test_streams_share_one_order() -> None:
    """Two streams with a row for the same device send them one after the other, first come first."""

    async def main() -> list[tuple[int, float, float]]:
        machine = Machine()
        service = Service(machine.now, failing({1: 2}))
        async with engine_on(service, machine.clock) as engine:
            await asyncio.gather(*[deliver(engine, [record(number, push_id="token")]) for number in (1, 2)])
        return [(exchange.number, exchange.sent, exchange.over) for exchange in service.exchanges]

    exchanges = run_virtually(main)
    assert [1, 1, 1, 2] == [number for number, _, _ in exchanges]
    assert exchanges[2][2] <= exchanges[3][1]


def test_reading_waits_while_the_lanes_are_full_and_goes_on() -> None:
    """When too many rows are parked no row is read; as soon as one goes, reading goes on."""

    async def main() -> tuple[int, list[int]]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock) as engine:
            engine.agenda.lanes.max_parked = 3
            rows = [record(number, push_id="token") for number in range(20)]
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, rows))
            await asyncio.sleep(0.1)
            parked = engine.agenda.lanes.parked
            done = numbers(await collect(channel))
            await feeding
        return parked, done

    assert (3, list(range(20))) == run_virtually(main)


def test_another_stream_reads_on_when_the_lanes_have_room_again() -> None:
    """A stream that waits because of another's parked rows is woken when these go."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock) as engine:
            engine.agenda.lanes.max_parked = 3
            rows = [record(number, push_id="token") for number in range(9)]
            filling = asyncio.create_task(deliver(engine, rows))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(60):
                other = await deliver(engine, [record(50)])
            assert not filling.done()
            assert 9 == len(await filling)
        return numbers(other)

    assert [50] == run_virtually(main)


def test_a_stream_that_is_left_makes_room_in_the_lanes() -> None:
    """Rows parked for a stream that was left keep nobody else from reading on."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.1, throttled(600.0) if exchange.number == 0 else ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            engine.agenda.lanes.max_parked = 3
            stuck = asyncio.create_task(deliver(engine, [record(number, push_id="token") for number in range(9)]))
            await asyncio.sleep(1)
            other = asyncio.create_task(deliver(engine, [record(50)]))
            await asyncio.sleep(1)
            assert not other.done()
            stuck.cancel()
            await asyncio.wait([stuck])
            async with asyncio.timeout(10):
                return numbers(await other)

    assert [50] == run_virtually(main)


# --- outages ---------------------------------------------------------------------------------------------------------


def test_an_outage_is_probed_with_different_records() -> None:
    """One at a time, at growing intervals, another record each time; then everything is delivered at full pace."""
    back_at = 100.0

    def plan(exchange: Exchange) -> tuple[float, Outcome]:
        return 0.1, ACCEPTED if exchange.sent >= back_at else SILENCE

    story = tell(records(400), plan, in_flight=16)
    assert {Status.ACCEPTED} == set(story.statuses.values())
    assert 400 == len(story.results)
    down = [exchange for exchange in story.service.exchanges if exchange.sent < back_at]
    probes = [exchange for exchange in down if exchange.sent > down[20].over + 0.5]
    assert 5 <= len(probes) <= 7
    assert len(probes) == len({probe.number for probe in probes})
    gaps = [late.sent - early.over for early, late in pairwise(probes)]
    assert [2.0, 4.0, 8.0, 16.0, 30.0, 30.0][: len(gaps)] == pytest.approx(gaps, abs=0.1)
    first_accepted = next(exchange for exchange in story.service.exchanges if exchange.outcome is ACCEPTED)
    assert story.service.sent[-1] - first_accepted.over < 3


def test_few_records_take_turns_as_probes() -> None:
    """With nothing else left to send, those that failed probe one after the other, none twice in a row."""
    story = tell(records(25), lambda exchange: (0.1, BROKEN), in_flight=4, retry=Retry(outage_limit=600.0))
    probes = story.service.order[25:]
    assert len(probes) > 10
    assert all(before != after for before, after in pairwise(probes))
    assert max(Counter(probes).values()) - min(Counter(probes).values()) <= 1


def test_nothing_is_given_up_in_an_outage_that_lasts_too_long() -> None:
    """At the limit the run stops; no record is settled as failed, though each was tried many times."""
    story = tell(records(30), lambda exchange: (0.1, BROKEN), retry=Retry(outage_limit=120.0))
    assert ([], ServiceUnavailable) == (story.results, type(story.error))
    assert 119 < story.service.exchanges[-1].sent < 123


def test_a_poison_record_at_the_end_is_exhausted() -> None:
    """A record that kills the service, last in the file and met by an outage, ends exhausted and stops nobody."""

    def plan(exchange: Exchange) -> tuple[float, Outcome]:
        down = 1.0 < exchange.sent < 60.0
        return 0.1, BROKEN if down or exchange.number == 199 else ACCEPTED

    story = tell(records(200), plan, rate=Rate(6000, 60.0))
    assert (None, 200) == (story.error, len(story.results))
    assert {199: Status.EXHAUSTED} == {
        line: word for line, word in story.statuses.items() if word is not Status.ACCEPTED
    }


def test_an_outage_shows() -> None:
    """Whoever watches can see that the service counts as gone, and how many requests are on their way."""

    async def main() -> list[tuple[bool, int]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.5, ACCEPTED if exchange.sent > 5 else BROKEN))
        seen = []
        async with engine_on(service, machine.clock) as engine:
            delivering = asyncio.create_task(deliver(engine, records(30)))
            for seconds in (0.4, 0.9, 20.0):
                await asyncio.sleep(seconds)
                seen.append((engine.outage, engine.in_flight))
            await delivering
        return seen

    assert [(False, 30), (True, 0), (False, 0)] == run_virtually(main)


def test_everybody_pauses_when_the_service_asks() -> None:
    """Nothing is sent in the time that the service asked for."""

    def plan(exchange: Exchange) -> tuple[float, Outcome]:
        return 0.1, replace(ACCEPTED, remaining=0, reset_after=30.0) if exchange.number == 20 else ACCEPTED

    story = tell(records(200), plan, rate=Rate(6000, 60.0))
    asked = next(exchange.over for exchange in story.service.exchanges if exchange.number == 20)
    assert [] == [sent for sent in story.service.sent if asked < sent < asked + 30]
    assert 200 == len(story.results)


def test_a_full_window_waits_for_an_answer() -> None:
    """With all slots on their way the next request waits until an answer, and then a window."""
    story = tell(records(3), lambda exchange: (20.0, ACCEPTED), rate=Rate(2, 5.0))
    assert story.service.exchanges[0].over + 5 <= story.service.sent[2] <= story.service.exchanges[0].over + 5.1


def test_a_stop_while_the_window_is_full() -> None:
    """Whoever waits at the gate for an answer is told of the stop."""

    async def main() -> int:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (9.0, ACCEPTED))
        async with engine_on(service, machine.clock, rate=Rate(2, 5.0)) as engine:
            delivering = asyncio.create_task(deliver(engine, records(9)))
            await asyncio.sleep(8)
            engine.stop(Interrupted("enough"))
            with pytest.raises(Interrupted):
                await delivering
        return len(service.exchanges)

    assert 2 == run_virtually(main)


def test_an_aborted_try_is_one_of_the_record_s_own() -> None:
    """A verdict without an answer is told as an error."""
    story = tell([record(0)], failing({0: 1}, Outcome(Verdict.TROUBLE, error="connection lost")))
    assert ["connection lost", None] == [attempt.error for attempt in story.results[0].attempts]
