"""One record, its answers one by one: when each try is sent, what it costs, how it ends. And outages, told to the end.

The draw is fixed at a half: waits are half of what they may be at most. Each answer takes a tenth of a second.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from moe_bulk.config import Rate, Retry
from moe_bulk.errors import AccountRefused, RunStopped, ServiceUnavailable
from moe_bulk.outcome import Outcome, Status, Verdict
from tests.builders import (
    ACCEPTED,
    BROKEN,
    DOOMED,
    REJECTED,
    SILENCE,
    Exchange,
    Machine,
    Service,
    deliver,
    engine_on,
    record,
    records,
    throttled,
)
from tests.simulation import CRASHED, REFUSED, RESET, TRUNCATED, Watched
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from moe_bulk.outcome import Result
    from moe_bulk.record import Record

LATER = Outcome(Verdict.TROUBLE, 503, reason="come back later", retry_after=7.0)


@dataclass
class Told:
    """What came of it."""

    service: Service
    policy: Watched
    results: list[Result] = field(default_factory=list)
    error: RunStopped | None = None

    @property
    def statuses(self) -> dict[int, Status]:
        """The last word on each row."""
        return {result.position.line: result.status for result in self.results}

    def given_up(self) -> list[int]:
        """The rows whose tries were used up."""
        return sorted(number for number, status in self.statuses.items() if status is Status.EXHAUSTED)

    def cost(self, number: int) -> tuple[int, int]:
        """What a row paid, and what was free."""
        last = [judged for judged in self.policy.judged if judged.number == number][-1]
        return last.tries, last.free


def tell(
    rows: Sequence[Record],
    answer: Callable[[Exchange], tuple[float, Outcome]],
    *,
    retry: Retry | None = None,
    in_flight: int = 64,
    rate: Rate | None = None,
) -> Told:
    """Deliver rows to a service that answers so."""

    async def main() -> Told:
        machine = Machine()
        told = Told(Service(machine.now, answer), Watched(retry or Retry(), lambda: 0.5))
        try:
            engine = engine_on(told.service, machine.clock, in_flight=in_flight, policy=told.policy, rate=rate)
            async with engine:
                await deliver(engine, rows, told.results)
        except RunStopped as error:
            told.error = error
        return told

    told: Told = run_virtually(main)
    return told


def by_script(scripts: dict[int, list[Outcome]]) -> Callable[[Exchange], tuple[float, Outcome]]:
    """Answer each row by its own list, the last answer again and again; rows without one are accepted."""
    asked: dict[int, int] = defaultdict(int)

    def answer(exchange: Exchange) -> tuple[float, Outcome]:
        script = scripts.get(exchange.number, [ACCEPTED])
        asked[exchange.number] += 1
        outcome = script[min(asked[exchange.number], len(script)) - 1]
        return (30.0 if outcome is SILENCE else 0.1), outcome

    return answer


@pytest.mark.parametrize(
    ("script", "gaps", "cost", "status"),
    [
        ([ACCEPTED], [], (1, 0), Status.ACCEPTED),
        ([REJECTED], [], (1, 0), Status.REJECTED),
        ([DOOMED], [], (1, 0), Status.REJECTED),
        ([CRASHED, CRASHED, RESET, throttled(), ACCEPTED], [0.25, 0.5, 1.0, 2.0], (4, 1), Status.ACCEPTED),
        ([CRASHED, CRASHED, RESET, throttled(9.0), ACCEPTED], [0.25, 0.5, 1.0, 9.0], (4, 1), Status.ACCEPTED),
        ([LATER, ACCEPTED], [7.0], (2, 0), Status.ACCEPTED),
        ([throttled(), throttled(), REJECTED], [0.25, 0.5], (1, 2), Status.REJECTED),
        ([TRUNCATED, TRUNCATED, DOOMED], [0.25, 0.5], (3, 0), Status.REJECTED),
        ([SILENCE, REFUSED, ACCEPTED], [0.25, 0.5], (3, 0), Status.ACCEPTED),
        ([BROKEN], [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0], (8, 0), Status.EXHAUSTED),
        ([BROKEN, throttled(1.0)] * 7 + [ACCEPTED],
         [0.25, 1.0, 1.0, 1.0, 4.0, 1.0, 16.0, 1.0, 30.0, 1.0, 30.0, 1.0, 30.0, 1.0], (8, 7), Status.ACCEPTED),
        ([throttled(2.0)], [2.0] * 99, (0, 100), Status.EXHAUSTED),
    ],
)  # fmt: skip
def test_a_record_s_tries(script: list[Outcome], gaps: list[float], cost: tuple[int, int], status: Status) -> None:
    """Its sendings stand apart as the backoff or the service asks; what it pays and its last word follow from that."""
    told = tell([record(0)], by_script({0: script}))
    exchanges = told.service.exchanges
    found = [late.sent - early.over for early, late in pairwise(exchanges)]
    assert gaps == pytest.approx(found, abs=0.01)
    assert (cost, status) == (told.cost(0), told.statuses[0])


def test_the_next_of_the_device_waits_for_all_of_it() -> None:
    """A later row for the same token goes when the earlier one has got through, and at once then."""
    rows = [record(number, push_id="token") for number in range(3)]
    told = tell(rows, by_script({0: [CRASHED, RESET, ACCEPTED], 1: [throttled(5.0), REJECTED]}))
    assert [0, 0, 0, 1, 1, 2] == told.service.order
    times = [exchange.sent - told.service.sent[0] for exchange in told.service.exchanges]
    assert [0.0, 0.35, 0.95, 1.05, 6.15, 6.25] == pytest.approx(times, abs=0.02)


# --- outages, told to the end ----------------------------------------------------------------------------------------


def down(*spans: tuple[float, float], then: Outcome = ACCEPTED) -> Callable[[Exchange], tuple[float, Outcome]]:
    """Answer 503 in these times."""
    return lambda exchange: (0.1, BROKEN if any(start <= exchange.sent < end for start, end in spans) else then)


@pytest.mark.parametrize("minutes", [1, 5, 20])
def test_an_outage_of_minutes_costs_no_tries(minutes: int) -> None:
    """Those that led to it, those on their way and the probes: all pay for one try, the one that got through."""
    told = tell(records(300), down((1.0, 60.0 * minutes)), in_flight=30)
    assert {Status.ACCEPTED} == set(told.statuses.values())
    assert {1} == {told.cost(number)[0] for number in range(300)}
    sent = [exchange for exchange in told.service.exchanges if exchange.outcome is BROKEN]
    assert len(sent) <= 20 + 30 + 5 + 2 * minutes


@pytest.mark.parametrize("poison", [range(285, 300), range(100, 115), range(0, 150, 10)])
def test_fewer_than_twenty_poison_records_are_given_up(poison: range) -> None:
    """Wherever they stand, and though an outage met them before, they end exhausted and stop nobody."""
    answer = down((0.2, 100.0))
    told = tell(
        records(300),
        lambda exchange: (0.1, CRASHED) if exchange.number in poison else answer(exchange),
        rate=Rate(6000, 60.0),
    )
    assert (None, list(poison)) == (told.error, told.given_up())
    assert 300 == len(told.results)


@pytest.mark.parametrize("poison", [range(300, 340), range(0, 600, 10), range(50)])
def test_many_poison_records_are_given_up_where_others_get_through(poison: range) -> None:
    """However many they are and however close together, as long as others are accepted while they fail."""
    answer = lambda exchange: (0.1, CRASHED if exchange.number in poison else ACCEPTED)  # noqa: E731  one expression
    told = tell(records(1500), answer, rate=Rate(1200, 60.0))
    assert (None, list(poison)) == (told.error, told.given_up())
    assert max(map(sum, (told.cost(number) for number in poison))) <= 8 + 3


def test_twenty_poison_records_alone_cannot_be_told_from_an_outage() -> None:
    """With nothing else to send the run stops for their sake, and gives none of them up."""
    told = tell(records(30), lambda exchange: (0.1, CRASHED), retry=Retry(outage_limit=600.0))
    assert (ServiceUnavailable, []) == (type(told.error), told.results)
    assert "with --tries 1 each run gives up on some of them" in str(told.error)


def test_the_way_out_of_that_is_one_try_each() -> None:
    """As the message says: with a single try each resumed run gives up on nineteen of them."""
    left = records(30)
    for most in (19, 11):
        told = tell(left, lambda exchange: (0.1, CRASHED), retry=Retry(tries=1, outage_limit=60.0))
        assert most == len(told.given_up())
        left = [row for row in left if row.position.line not in told.statuses]
    assert (None, []) == (told.error, left)


@pytest.mark.parametrize("outcome", [BROKEN, SILENCE, RESET])
def test_fewer_than_twenty_rows_make_no_outage(outcome: Outcome) -> None:
    """A small file meets each of its rows' own limits of tries."""
    told = tell(records(19), by_script({number: [outcome] for number in range(19)}))
    assert (None, list(range(19))) == (told.error, told.given_up())


def test_a_few_rows_wait_for_a_connection() -> None:
    """Where none can be made no row is to blame: three of them are enough to wait for it."""
    told = tell(records(3), lambda exchange: (0.1, REFUSED if exchange.sent < 900.0 else ACCEPTED))
    assert {Status.ACCEPTED} == set(told.statuses.values())
    assert {1} == {told.cost(number)[0] for number in range(3)}


@pytest.mark.parametrize(
    ("disliked", "stops"), [((5,), False), ((5, 80), False), ((298, 299), False), ((5, 6, 7), True)]
)
def test_a_firewall_that_dislikes_records_does_not_stop_every_resume(disliked: tuple[int, ...], *, stops: bool) -> None:
    """One or two are refused for themselves; three in a row stop the run, and the next one comes past them."""
    answer = lambda exchange: (0.1, DOOMED if exchange.number in disliked else ACCEPTED)  # noqa: E731  one expression
    told = tell(records(300), answer, in_flight=1)
    assert stops == isinstance(told.error, AccountRefused)
    left = [row for row in records(300) if row.position.line not in told.statuses]
    again = tell(left, answer, in_flight=1)
    assert (None, len(left)) == (again.error, len(again.results))


def test_a_service_that_comes_back_with_429s() -> None:
    """They end no outage and cost nothing; the first acceptance does, and all is delivered."""
    answer = lambda exchange: (  # noqa: E731  one expression
        0.1, BROKEN if exchange.sent < 60 else throttled() if exchange.sent < 120 else ACCEPTED
    )  # fmt: skip
    told = tell(records(100), answer)
    assert {Status.ACCEPTED} == set(told.statuses.values())
    assert {1} == {told.cost(number)[0] for number in range(100)}
    between = [exchange for exchange in told.service.exchanges if 62 < exchange.sent < 120]
    assert len(between) <= 4


def test_patience_ends_with_nothing_given_up() -> None:
    """At the limit the run stops, whatever was on its way; what was accepted before stays."""
    told = tell(records(300), down((1.0, 1e9)), retry=Retry(outage_limit=300.0), rate=Rate(6000, 60.0))
    assert ServiceUnavailable is type(told.error)
    assert {Status.ACCEPTED} == set(told.statuses.values())
    assert 301 < told.service.exchanges[-1].sent < 304


@pytest.mark.parametrize(("in_flight", "rate"), [(1, Rate(60_000, 60.0)), (2, Rate(6000, 60.0)), (64, Rate(30, 60.0))])
@pytest.mark.parametrize("outcome", [SILENCE, BROKEN])
def test_slow_runs_notice_an_outage_before_it_costs_them_a_row(in_flight: int, rate: Rate, outcome: Outcome) -> None:
    """With one request at a time that hangs, or one every two seconds: others are tried before the same again."""
    told = tell(
        records(60),
        lambda exchange: (30.0 if outcome is SILENCE else 0.1, outcome) if exchange.sent < 1500 else (0.1, ACCEPTED),
        in_flight=in_flight,
        rate=rate,
    )
    assert {Status.ACCEPTED} == set(told.statuses.values())
