"""Live traffic in the same workspace: what the upload takes of a limit that others use, too, and how it gives way.

    python benchmarks/shared_limit.py --server sliding --seconds 900

A simulation on a virtual clock: the engine is the real one, the service a model that counts the requests of both and
answers 429 to those above the limit. Prints one line every so many seconds, for a plot, and what the upload made of it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import selectors
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from moe_bulk.clock import Clock
from moe_bulk.config import Rate, Retry
from moe_bulk.device import Device
from moe_bulk.engine import Engine
from moe_bulk.errors import Interrupted, RunStopped
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.pacing import Pace
from moe_bulk.record import Position, Record, Row
from moe_bulk.retry import Policy
from moe_bulk.users import Users

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from moe_bulk.channel import Channel

TICK = 1e-6
TIMEOUT = 30.0
SETTLED_AFTER = 120.0
"""Seconds that the upload has to find its share, at the start and after the live traffic has grown."""


# --- the service -----------------------------------------------------------------------------------------------------


class Counting(Protocol):
    """How a service counts."""

    def take(self, now: float) -> bool:
        """Count one more request, if there is room for it."""

    def reset_after(self, now: float, /) -> float:
        """Give the seconds after which there will be room."""

    def remaining(self, now: float) -> int:
        """Give how many more there is room for."""


@dataclass
class Fixed:
    """Counts from each full window to the next."""

    rate: Rate
    window: int = -1
    taken: int = 0

    def take(self, now: float) -> bool:
        """Count one more request, if there is room for it."""
        if self.remaining(now) == 0:
            return False
        self.taken += 1
        return True

    def remaining(self, now: float) -> int:
        """Give how many more there is room for."""
        if now // self.rate.per != self.window:
            self.window, self.taken = int(now // self.rate.per), 0
        return self.rate.limit - self.taken

    def reset_after(self, now: float) -> float:
        """Give the seconds to the next window."""
        return self.rate.per - now % self.rate.per


@dataclass
class Sliding:
    """Counts those of the last window, at any time."""

    rate: Rate
    times: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> bool:
        """Count one more request, if there is room for it."""
        if self.remaining(now) == 0:
            return False
        self.times.append(now)
        return True

    def remaining(self, now: float) -> int:
        """Give how many more there is room for."""
        while self.times and self.times[0] <= now - self.rate.per:
            self.times.popleft()
        return self.rate.limit - len(self.times)

    def reset_after(self, now: float) -> float:
        """Give the seconds until the oldest one is forgotten."""
        return self.times[0] + self.rate.per - now if self.times else 0.0


@dataclass
class Bucket:
    """A token bucket that holds two seconds' worth."""

    rate: Rate
    tokens: float = 0.0
    at: float = 0.0

    def take(self, now: float) -> bool:
        """Count one more request, if there is room for it."""
        if self.remaining(now) == 0:
            return False
        self.tokens -= 1
        return True

    def remaining(self, now: float) -> int:
        """Give how many more there is room for."""
        self.tokens = min(2 * self.rate.per_second, self.tokens + (now - self.at) * self.rate.per_second)
        self.at = now
        return int(self.tokens)

    def reset_after(self, _: float, /) -> float:
        """Give the seconds until the next token."""
        return max(0.0, 1 - self.tokens) / self.rate.per_second


SERVERS: dict[str, Callable[[Rate], Counting]] = {"fixed": Fixed, "sliding": Sliding, "bucket": Bucket}
TELLS = ("nothing", "retry-after", "remaining")
"""What a service tells with its answers: nothing, `Retry-After` with a 429, or `x-ratelimit-*` with each."""


@dataclass(frozen=True)
class Plan:
    """What is simulated: live traffic takes shares of the limit, one after the other, for equally long."""

    server: str = "sliding"
    tells: str = "nothing"
    rate: Rate = field(default_factory=Rate)
    latency: float = 0.3
    seconds: int = 900
    shares: tuple[float, ...] = (0.4, 0.7)

    def share(self, now: float) -> float:
        """The live traffic's share of the limit at a time."""
        return self.shares[min(int(now * len(self.shares) / self.seconds), len(self.shares) - 1)]


@dataclass
class Second:
    """What happened in one second of virtual time."""

    live: int = 0
    live_refused: int = 0
    offered: int = 0
    accepted: int = 0
    refused: int = 0
    share: float = 0.0


@dataclass
class Workspace:
    """One limit for live traffic and upload, and the notes of who got what."""

    plan: Plan
    counting: Counting
    now: Callable[[], float]
    seconds: list[Second]
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    next_live: float = 0.0

    def second(self, at: float) -> Second:
        """The notes of a second."""
        return self.seconds[min(int(at), len(self.seconds) - 1)]

    def live(self, until: float) -> None:
        """Receive the requests of the live traffic until then, in the order of time."""
        while self.next_live <= until:
            second = self.second(self.next_live)
            if self.counting.take(self.next_live):
                second.live += 1
            else:
                second.live_refused += 1
            self.next_live += self.chance.expovariate(self.plan.share(self.next_live) * self.plan.rate.per_second)

    async def attempt(self, _: Record) -> Outcome:
        """Receive a request of the upload."""
        self.second(self.now()).offered += 1
        latency = self.plan.latency * self.chance.uniform(0.7, 1.3)
        await asyncio.sleep(latency / 2)
        outcome = self._judge()
        await asyncio.sleep(latency / 2)
        return outcome

    def _judge(self) -> Outcome:
        now = self.now()
        self.live(now)
        taken = self.counting.take(now)
        told: dict[str, Any] = {}
        if self.plan.tells == "remaining":
            told = {"remaining": self.counting.remaining(now), "reset_after": self.counting.reset_after(now)}
        if taken:
            self.second(now).accepted += 1
            return Outcome(Verdict.ACCEPTED, 200, **told)
        self.second(now).refused += 1
        if self.plan.tells == "retry-after":
            told["retry_after"] = float(int(self.counting.reset_after(now)) + 1)
        return Outcome(Verdict.THROTTLED, 429, "Rate Limits Exceeded", **told)


# --- the run ---------------------------------------------------------------------------------------------------------


class _Jumping(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        self.now += TICK
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when everybody waits."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def simulate(plan: Plan) -> list[Second]:
    """Upload for so long beside the live traffic; what happened, second by second."""
    seconds = [Second() for _ in range(plan.seconds)]

    def main() -> Coroutine[None, None, None]:
        return _run(plan, seconds)

    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(main())
    return seconds


async def _run(plan: Plan, seconds: list[Second]) -> None:
    clock = Clock(asyncio.get_running_loop().time, 0.0)
    workspace = Workspace(plan, SERVERS[plan.server](plan.rate), clock.now, seconds)
    pace = Pace(plan.rate, TIMEOUT)
    policy = Policy(Retry(), random.Random(2).random)
    engine = Engine(workspace.attempt, pace, policy, Users(TIMEOUT), clock, 512)
    try:
        async with engine:
            asyncio.get_running_loop().call_at(plan.seconds, engine.stop, Interrupted("long enough"))
            channel = engine.open()
            others = [asyncio.create_task(work) for work in (_note_share(seconds, pace, clock), _feed(channel))]
            try:
                while await channel.receive():
                    pass
            finally:
                for other in others:
                    other.cancel()
    except RunStopped:
        pass


async def _note_share(seconds: list[Second], pace: Pace, clock: Clock) -> None:
    for second in seconds:
        second.share = 0.0 if clock.now() < pace.throttle.paused_until else pace.throttle.share(clock.now())
        await asyncio.sleep(1)


async def _feed(channel: Channel) -> None:
    number = 0
    while channel.room or await channel.wait_for_room():
        channel.put(Record(Row(Position("rows", number, number), {}), Device(f"u-{number}", f"d-{number}", {})))
        number += 1


# --- what came of it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What the upload made of one share of the live traffic, once it had settled."""

    share: float
    left: float
    """Requests a second that the live traffic leaves: it comes as it likes, on the average so often."""
    accepted: float
    refused: float
    """Of what the upload offered."""
    live_refused: float
    """Of what the live traffic asked for."""
    reaction: int | None
    """Seconds after which, since the live traffic began to take this, ten seconds held no more than is left."""

    @property
    def used(self) -> float:
        """The share of what is left that was accepted."""
        return self.accepted / self.left


def findings(plan: Plan, seconds: Sequence[Second]) -> list[Finding]:
    """Look at each part of the plan."""
    length = plan.seconds // len(plan.shares)
    return [
        _finding(plan, share, seconds[number * length : (number + 1) * length])
        for number, share in enumerate(plan.shares)
    ]


def _finding(plan: Plan, share: float, part: Sequence[Second]) -> Finding:
    settled = part[int(min(SETTLED_AFTER, len(part) / 2)) :]
    whole = settled[len(settled) % int(plan.rate.per) if len(settled) > plan.rate.per else 0 :]
    offered, live = sum(each.offered for each in whole), sum(each.live + each.live_refused for each in whole)
    left = plan.rate.per_second - live / len(whole)
    reaction = next(
        (at for at in range(len(part) - 10) if sum(each.offered for each in part[at : at + 10]) <= 11 * left), None
    )
    return Finding(
        share,
        left,
        sum(each.accepted for each in whole) / len(whole),
        sum(each.refused for each in whole) / max(1, offered),
        sum(each.live_refused for each in whole) / max(1, live),
        reaction,
    )


HEAD = f"{'second':>6} {'live':>6} {'refused':>7} {'offered':>7} {'accepted':>8} {'429s':>6} {'share':>6}"


def plot(seconds: Sequence[Second], step: int) -> str:
    """The plot's data, a line for so many seconds: averages a second."""
    lines = [HEAD]
    for start in range(0, len(seconds), step):
        part = seconds[start : start + step]
        cells = [f"{sum(column) / len(part):>{width}.{digits}f}" for column, width, digits in _columns(part)]
        lines.append(" ".join((f"{start:>6}", *cells)))
    return "\n".join(lines)


def _columns(part: Sequence[Second]) -> Sequence[tuple[list[float], int, int]]:
    """The plot's columns, and how wide and exact each is."""
    return (
        ([each.live for each in part], 6, 1),
        ([each.live_refused for each in part], 7, 1),
        ([each.offered for each in part], 7, 1),
        ([each.accepted for each in part], 8, 1),
        ([each.refused for each in part], 6, 1),
        ([each.share for each in part], 6, 2),
    )


def summary(found: Sequence[Finding]) -> str:
    """What the upload made of it, a line for each share of the live traffic."""
    return "\n".join(
        f"live traffic takes {each.share:.0%}: {each.left:.1f}/s are left, the upload gets {each.accepted:.1f}/s "
        f"({each.used:.1%} of them); 429s: {each.refused:.1%} of the upload's requests, {each.live_refused:.1%} of the "
        f"live traffic's; gave way after {'-' if each.reaction is None else each.reaction} s"
        for each in found
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=SERVERS, default="sliding", help="how the service counts")
    parser.add_argument("--tells", choices=TELLS, default="nothing", help="what it tells with its answers")
    parser.add_argument("--rate", type=Rate.parse, default=Rate(), help="the workspace's limit; default 10000/min")
    parser.add_argument("--latency", type=float, default=300.0, help="milliseconds; default 300")
    parser.add_argument("--seconds", type=int, default=900, help="virtual ones; default 900")
    parser.add_argument("--live", default="40,70", help="percent that live traffic takes, in turn; default 40,70")
    parser.add_argument("--step", type=int, default=10, help="seconds a line; default 10")
    options = parser.parse_args(argv)
    shares = tuple(float(share) / 100 for share in options.live.split(","))
    if not all(0 < share < 1 for share in shares) or options.seconds < 20 * len(shares) or options.step < 1:
        parser.error("the live traffic takes between 0 and 100 percent, for at least 20 seconds; a step is positive")
    plan = Plan(options.server, options.tells, options.rate, options.latency / 1000, options.seconds, shares)
    seconds = simulate(plan)
    print(f"limit {plan.rate}, {plan.server} window, tells {plan.tells}; averages a second\n")
    print(plot(seconds, options.step))
    print(f"\n{summary(findings(plan, seconds))}")


if __name__ == "__main__":
    main()
