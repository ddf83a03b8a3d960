"""What the engine's tests are made of: records, outcomes, a network that is a function, and the busiest window."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from moe_bulk.clock import Clock
from moe_bulk.config import Rate, Retry
from moe_bulk.device import Device
from moe_bulk.engine import Engine
from moe_bulk.outcome import Outcome, Status, Verdict
from moe_bulk.pacing import Pace
from moe_bulk.record import Position, Record, Row
from moe_bulk.retry import Policy
from moe_bulk.users import Users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from moe_bulk.agenda import Entry
    from moe_bulk.channel import Channel
    from moe_bulk.outcome import Result
    from moe_bulk.users import UserLimits

ZERO = 1_700_000_000.0
"""The epoch second at which the virtual clock stands at 0."""

TIMEOUT = 30.0

ACCEPTED = Outcome(Verdict.ACCEPTED, 200)
REJECTED = Outcome(Verdict.REJECTED, 400, "ValueError", "a bad value")
BROKEN = Outcome(Verdict.TROUBLE, 503, reason="come back later")
SILENCE = Outcome(Verdict.TROUBLE, error="timeout", reason="no answer within 30 s")
DOOMED = Outcome(Verdict.DOOMED, 403, "Account Suspended", "suspended")
UNAUTHORIZED = Outcome(Verdict.UNAUTHORIZED, 401, "Authentication required", "no such key")
MISDIRECTED = Outcome(Verdict.MISDIRECTED, 404, reason="Not Found")


def throttled(
    retry_after: float | None = None, remaining: int | None = None, reset_after: float | None = None
) -> Outcome:
    """Give a 429."""
    return Outcome(
        Verdict.THROTTLED,
        429,
        "Rate Limits Exceeded",
        retry_after=retry_after,
        remaining=remaining,
        reset_after=reset_after,
    )


def record(number: int, *, customer_id: str | None = None, device_id: str | None = None, **attributes: str) -> Record:
    """Give the record of row `number`; it shares no key with any other unless it is given one."""
    device = Device(customer_id or f"u-{number}", device_id or f"d-{number}", attributes)
    return Record(Row(Position("rows", number, number), {}), device)


def records(count: int) -> list[Record]:
    """Give so many records that have nothing to do with each other."""
    return [record(number) for number in range(count)]


def numbers(results: Iterable[Result]) -> list[int]:
    """Give the row numbers of results."""
    return [result.position.line for result in results]


class Machine:
    """A machine's boot clock on the virtual loop; `sleep` suspends it: the clock goes on, the loop does not."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asleep = 0.0
        self.clock = Clock(self.now, ZERO)

    def now(self) -> float:
        """Give boot-clock seconds."""
        return self._loop.time() + self._asleep

    def sleep(self, seconds: float) -> None:
        """Stand still for so long."""
        self._asleep += seconds


@dataclass(eq=False)
class Exchange:
    """One request: `over` is when it was answered, given up or aborted; only an aborted one has no outcome."""

    record: Record
    sent: float
    over: float = float("inf")
    outcome: Outcome | None = None

    @property
    def number(self) -> int:
        """The number of its row."""
        return self.record.position.line


@dataclass
class Service:
    """A network that is a function: `plan` says how long each exchange takes (seconds) and what comes of it.

    What takes longer than `TIMEOUT` is given up, as the real client does.
    """

    now: Callable[[], float]
    plan: Callable[[Exchange], tuple[float, Outcome]] = lambda exchange: (0.3, ACCEPTED)
    exchanges: list[Exchange] = field(default_factory=list)
    on_their_way: int = 0
    most_on_their_way: int = 0

    async def attempt(self, record: Record) -> Outcome:
        """Make one attempt."""
        exchange = Exchange(record, self.now())
        self.exchanges.append(exchange)
        self.on_their_way += 1
        self.most_on_their_way = max(self.most_on_their_way, self.on_their_way)
        try:
            seconds, outcome = self.plan(exchange)
            await asyncio.sleep(min(seconds, TIMEOUT))
            exchange.outcome = SILENCE if seconds > TIMEOUT else outcome
        finally:
            exchange.over = self.now()
            self.on_their_way -= 1
        return exchange.outcome

    @property
    def sent(self) -> list[float]:
        """When each request was sent."""
        return [exchange.sent for exchange in self.exchanges]

    @property
    def order(self) -> list[int]:
        """The rows' numbers in the order of sending."""
        return [exchange.number for exchange in self.exchanges]


class Network(Protocol):
    """What an engine can send to."""

    async def attempt(self, record: Record, /) -> Outcome:
        """Make one attempt."""
        raise NotImplementedError


def engine_on(
    service: Network,
    clock: Clock,
    *,
    rate: Rate | None = None,
    retry: Retry | None = None,
    in_flight: int = 64,
    draw: Callable[[], float] = lambda: 0.5,
    policy: Policy | None = None,
    limits: UserLimits | None = None,
) -> Engine:
    """Give an engine over a fake network; by default a fast one, with no chance in its waits."""
    pace = Pace(rate or Rate(60_000, 60.0), TIMEOUT)
    users = Users(TIMEOUT, limits, cells=2**8)
    return Engine(service.attempt, pace, policy or Policy(retry or Retry(), draw), users, clock, in_flight)


class Looker:
    """A screen that says nothing by itself."""

    def __init__(self) -> None:
        self.asked: list[Entry] = []

    def ask(self, entry: Entry) -> None:
        """Note it."""
        self.asked.append(entry)

    def withdraw(self) -> list[Entry]:
        """Give them back."""
        gone, self.asked = self.asked, []
        return gone

    def is_stale(self, entry: Entry) -> bool:
        """Is asked only of what it has cleared."""
        raise AssertionError(entry)

    def settled(self, entry: Entry, status: Status) -> None:
        """Is told only of what was sent."""
        raise AssertionError(entry, status)


async def feed(channel: Channel, rows: Iterable[Record]) -> None:
    """Put all rows in as there is room, and end the channel."""
    left = iter(rows)
    while True:
        if not channel.room and not await channel.wait_for_room():
            return
        if not (some := list(islice(left, channel.room))):
            break
        channel.put(*some)
    channel.end()


async def collect(channel: Channel, into: list[Result] | None = None) -> list[Result]:
    """Read a channel to its end; with `into`, what came before an error is there."""
    results = [] if into is None else into
    while batch := await channel.receive():
        results += batch
    return results


async def deliver(engine: Engine, rows: Iterable[Record], into: list[Result] | None = None) -> list[Result]:
    """Send rows through one channel and give their results; the channel is left whatever happens."""
    channel = engine.open()
    feeding = asyncio.create_task(feed(channel, rows))
    try:
        return await collect(channel, into)
    finally:
        engine.leave(channel)
        feeding.cancel()
        await asyncio.wait([feeding])


def busiest(times: Sequence[float], per: float) -> int:
    """Give the largest number of times in any closed window of `per` seconds."""
    ordered = sorted(times)
    return max((bisect_right(ordered, at + per) - first for first, at in enumerate(ordered)), default=0)


def busiest_possible(spans: Sequence[tuple[float, float]], per: float) -> int:
    """Give the largest number of requests that any window of `per` seconds can have received, in the worst case.

    A request with the span (sent, over) arrives at one moment of it that an adversary chooses. The closed window
    [t, t + per] can receive it exactly if its span touches the window: sent ≤ t + per and over ≥ t. The choices are
    independent of each other, so for one window all that touch it can arrive inside it together: the adversary's best
    is the number of spans that touch, and no assignment of moments to requests beats it for that window. That number
    changes upwards only where a window's end meets a sending, so windows that end at a sending are all that need
    looking at: those sent by then, less those that were over before the window began.
    """
    sent = sorted(start for start, _ in spans)
    over = sorted(end for _, end in spans)
    return max((bisect_right(sent, at) - bisect_left(over, at - per) for at in sent), default=0)
