"""The promise itself, kept by engine and pace together: no window ever holds more than the limit, and it is used."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.config import Rate, Retry
from moe_bulk.errors import Interrupted, RunStopped
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.pacing.guard import GRACE
from tests.builders import (
    ACCEPTED,
    BROKEN,
    REJECTED,
    SILENCE,
    TIMEOUT,
    Exchange,
    Machine,
    Service,
    busiest,
    busiest_possible,
    deliver,
    engine_on,
    record,
    records,
    throttled,
)
from tests.effort import examples
from tests.virtual import VirtualLoop, run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING_LEFT = Outcome(Verdict.ACCEPTED, 200, remaining=0)
FULL_PACE = Rate(10_000, 60.0)


@dataclass(frozen=True)
class Weather:
    """How a network behaves: the weights of what can happen to a request, its usual latency, and the seed of it all."""

    seed: int
    latency: float
    weights: tuple[int, ...]

    def plan(self) -> Callable[[Exchange], tuple[float, Outcome]]:
        """Give the function that decides about each request."""
        chance = random.Random(self.seed)
        kinds: tuple[Callable[[], tuple[float, Outcome]], ...] = (
            lambda: (chance.uniform(0, 2 * self.latency), ACCEPTED),
            lambda: (chance.uniform(0, 40), ACCEPTED),  # stalls; some run into the timeout
            lambda: (1e6, ACCEPTED),  # hangs
            lambda: (chance.uniform(0, self.latency), SILENCE),  # a reset: it may have been received
            lambda: (self.latency, BROKEN),
            lambda: (self.latency, throttled()),
            lambda: (self.latency, throttled(chance.uniform(0, 20))),
            lambda: (self.latency, NOTHING_LEFT),
            lambda: (self.latency, REJECTED),
        )
        weights = (20, *self.weights)
        return lambda exchange: chance.choices(kinds, weights)[0]()


RATES = st.builds(Rate, st.integers(1, 60), st.floats(1, 60))
WEATHERS = st.builds(
    Weather,
    st.integers(0, 2**32),
    st.floats(0, 5),
    st.tuples(*[st.sampled_from((0, 0, 1, 5, 30))] * 8),
)
MISHAPS = st.lists(st.tuples(st.floats(0, 60), st.sampled_from(("asleep", "blocked", "aborted")), st.floats(0, 90)))


async def disturb(machine: Machine, abort: Callable[[], None], mishaps: list[tuple[float, str, float]]) -> None:
    """Suspend the machine, block the loop or abort what is on its way, after some seconds each."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    for after, what, seconds in mishaps:
        await asyncio.sleep(after)
        match what:
            case "asleep":
                machine.sleep(seconds)
            case "blocked":
                loop.selector.now += seconds
            case _:
                abort()


async def traffic(rate: Rate, weather: Weather, mishaps: list[tuple[float, str, float]]) -> list[Exchange]:
    """Deliver three windows' worth of rows, some of one device, through all that; give the requests."""
    machine = Machine()
    service = Service(machine.now, weather.plan())
    users = 2 * rate.limit
    rows = [record(number, customer_id=f"u-{number % users}", device_id="d") for number in range(rate.limit * 3 + 4)]
    retry = Retry(tries=4, free_tries=12, outage_limit=120.0)
    engine = engine_on(service, machine.clock, rate=rate, retry=retry, draw=random.Random(weather.seed).random)
    ended = False
    try:
        async with engine:
            asyncio.get_running_loop().call_later(5 * rate.per + 60, engine.stop, Interrupted("long enough"))
            disturbing = asyncio.create_task(disturb(machine, engine._flights.abort, mishaps))
            try:
                await deliver(engine, rows)
            finally:
                disturbing.cancel()
    except RunStopped:
        ended = True
    assert ended or len(service.exchanges) >= len(rows)
    return service.exchanges


def reach(exchange: Exchange) -> tuple[float, float]:
    """Give the time in which the server can have received a request.

    An answer proves that it had arrived. Without one it may still be on its way for as long as the attempt was allowed
    to take, and the connection's abort needs its time, too.
    """
    if exchange.outcome is not None and exchange.outcome.http_status is not None:
        return exchange.sent, exchange.over
    return exchange.sent, max(exchange.sent + TIMEOUT, exchange.over) + GRACE


@settings(max_examples=examples(60), deadline=None)
@given(RATES, WEATHERS, MISHAPS)
def test_no_window_ever_holds_more(rate: Rate, weather: Weather, mishaps: list[tuple[float, str, float]]) -> None:
    """Over random rates, latencies, stalls, timeouts, retries, 429s, aborts and machines that stand still.

    Two claims about every closed window [t, t + per], wherever it starts:

    1. No more than `limit` requests were sent in it.
    2. No more than `limit` can have arrived in it. The server received each request at some moment between its sending
       and its answer; where no answer came, until it can no longer arrive (see `reach`). We do not know the moments, so
       let an adversary choose all of them: for one window the worst choice moves every request that can reach it into
       it, and the choices do not hinder each other. So the requests whose span touches the window are counted, which
       is at least what any choice of moments gives. The first claim follows from the second (all choose the moment of
       sending) and is checked for itself, to tell the two apart when one breaks.
    """
    exchanges = run_virtually(traffic, rate, weather, mishaps)
    assert busiest([exchange.sent for exchange in exchanges], rate.per) <= rate.limit
    assert busiest_possible([reach(exchange) for exchange in exchanges], rate.per) <= rate.limit


def test_the_adversary_finds_what_counting_sendings_does_not() -> None:
    """One request held up and one sent a window later can arrive together: the check of arrivals sees it."""
    spans = [(0.0, 9.0), (10.0, 10.5)]
    assert (1, 2) == (busiest([sent for sent, _ in spans], 5.0), busiest_possible(spans, 5.0))


@pytest.mark.parametrize(
    ("shortest", "longest"),
    [(0.05, 0.05), (0.3, 0.3), (0.1, 0.5)],
)
def test_the_limit_is_used(shortest: float, longest: float) -> None:
    """At 10,000 a minute at least 98.5 % of the limit is used, at any usual latency, and never more than all of it."""
    minutes = 0.5

    async def main() -> Service:
        machine, chance = Machine(), random.Random(1)
        service = Service(machine.now, lambda exchange: (chance.uniform(shortest, longest), ACCEPTED))
        async with engine_on(service, machine.clock, rate=FULL_PACE, in_flight=512) as engine:
            asyncio.get_running_loop().call_later(60 * (minutes + 1) + 1, engine.stop, Interrupted("long enough"))
            with pytest.raises(Interrupted):
                await deliver(engine, records(int(10_000 * (minutes + 1.2))))
        return service

    service = run_virtually(main)
    assert busiest(service.sent, 60.0) <= 10_000
    steady = sum(60 < sent <= 60 * (minutes + 1) for sent in service.sent)
    assert 0.985 <= steady / (10_000 * minutes) <= 1
    assert service.most_on_their_way <= longest * 10_000 / 60 * 1.6 + 2


def test_no_burst_at_the_start() -> None:
    """The first second holds a second's share: a restart adds nothing to what the server has just seen."""

    async def main() -> list[float]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, rate=FULL_PACE, in_flight=512) as engine:
            await deliver(engine, records(400))
        return service.sent

    sent = run_virtually(main)
    for second in (0.1, 0.5, 1.0, 2.0):
        assert second * 10_000 / 60 == pytest.approx(sum(at <= second for at in sent), abs=2)
