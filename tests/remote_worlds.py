"""Uploads on several hosts that share a limit through a server which is only pretended, all on one virtual clock."""

from __future__ import annotations

import asyncio
import copy
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moe_bulk.config import Rate, Retry
from moe_bulk.engine import Engine
from moe_bulk.pacing import Pace
from moe_bulk.pacing.courier import ANSWER_SECONDS, Courier, Gone
from moe_bulk.pacing.guard import GRACE
from moe_bulk.pacing.remote import RemoteWindow
from moe_bulk.pacing.reservations import Call, Terms, understood
from moe_bulk.retry import Policy
from moe_bulk.users import Users
from tests.builders import (
    ACCEPTED,
    TIMEOUT,
    Exchange,
    Machine,
    Service,
    busiest,
    busiest_possible,
    collect,
    feed,
    records,
)
from tests.reservations_model import Model
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from moe_bulk.errors import PaceLost
    from moe_bulk.outcome import Outcome
    from moe_bulk.pacing.reservations import Reply

SERVER_EPOCH = 1_790_000_000.0


class FakeServer:
    """A Redis server that is only pretended: its clock runs on the virtual loop, and it can be killed."""

    def __init__(self, latency: float = 0.002, *, seed: int = 1, fast: float = 0.0) -> None:
        self.model = Model("run-0")
        self.up = True
        self.cut_off: set[str] = set()
        """Members that cannot reach it."""
        self.deaf = 0.0
        """The share of answers that get lost on their way back."""
        self.calls = 0
        self.ahead = 0.0
        self._latency = latency
        self._chance = random.Random(seed)
        self._fast = fast
        self._starts = 0
        self._saved: Any = None

    def micros(self) -> int:
        """Give its clock, which may run a little fast or slow, and be set."""
        now = asyncio.get_running_loop().time()
        return int((SERVER_EPOCH + self.ahead + now * (1 + self._fast)) * 1e6)

    def kill(self) -> None:
        """Go away."""
        self.up = False

    def save(self) -> None:
        """Save what it knows, as a snapshot does."""
        self._saved = copy.deepcopy(self.model.hash)

    def restart(self, *, empty: bool = True) -> None:
        """Come back with nothing, or with what was saved last."""
        self._starts += 1
        self.model = Model(f"run-{self._starts}")
        self.model.hash = None if empty else copy.deepcopy(self._saved)
        self.up = True

    def fail_over(self) -> None:
        """A replica takes over that has what was saved last, and tells the same id."""
        self.model.hash = copy.deepcopy(self._saved)

    def remember(self, rate: Rate) -> None:
        """Know the workspace since long ago: somebody was at work, and has left."""
        terms = Terms("before", rate, TIMEOUT)
        now = self.micros()
        for want, ago in ((1, 90_000), (-1, 86_000)):
            self.model.call(Call(want=want).words(terms), now - ago * 1_000_000)

    async def reach(self, member: str) -> None:
        """Take the way there, or a long time to find out that there is none."""
        await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self._latency / 2)
        if not self.up:
            raise Gone("connection refused")
        if member in self.cut_off:
            await asyncio.sleep(ANSWER_SECONDS)
            raise Gone("no answer within 3 s")

    async def answer(self) -> None:
        """Take the way back."""
        await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self._latency / 2)
        if not self.up or self._chance.random() < self.deaf:
            raise Gone("connection reset by peer")


class FakeStore:
    """One process's connection to it."""

    def __init__(self, server: FakeServer, terms: Terms) -> None:
        self._server = server
        self._terms = terms

    async def knock(self) -> None:
        """See whether it is there."""
        await self._server.reach(self._terms.member)
        await self._server.answer()

    async def ask(self, call: Call) -> Reply:
        """Put a question."""
        await self._server.reach(self._terms.member)
        self._server.calls += 1
        words = self._server.model.call(call.words(self._terms), self._server.micros())
        await self._server.answer()
        return understood(words)

    async def close(self) -> None:
        """Let go."""


@dataclass
class Life:
    """One process: when it begins, for how long it goes on, at which rate, and whether it is killed at the end."""

    begin: float = 0.0
    seconds: float = 60.0
    rate: Rate = field(default_factory=lambda: Rate(120, 6.0))
    killed: bool = False
    share: int = 0
    patience: float = 1800.0
    in_flight: int = 512


class World:
    """Processes and a server; afterwards, what the service can have received."""

    def __init__(self, server: FakeServer, plan: Callable[[Exchange], tuple[float, Outcome]]) -> None:
        self.server = server
        self.services: list[Service] = []
        self.windows: list[RemoteWindow] = []
        self.stopped: list[PaceLost] = []
        self._plan = plan

    async def live(self, life: Life) -> None:
        """Upload for so long; whoever is killed tells nobody."""
        await asyncio.sleep(life.begin)
        machine = Machine()
        machine.sleep(1000.0 * len(self.services))  # each host has a clock of its own
        service = Service(machine.now, self._plan)
        self.services.append(service)
        away = life.patience + 30 if life.share else 0.0
        terms = Terms(f"member-{len(self.services)}", life.rate, TIMEOUT, life.share, away)
        window = RemoteWindow(terms, "redis://pace:6379/0", life.patience, machine.now(), lambda: 0.5)
        self.windows.append(window)
        pace, policy = Pace(life.rate, TIMEOUT, window), Policy(Retry())
        engine = Engine(service.attempt, pace, policy, Users(TIMEOUT), machine.clock, life.in_flight)

        def stop(error: PaceLost) -> None:
            self.stopped.append(error)
            engine.stop(error)

        courier = Courier(window, FakeStore(self.server, terms), machine.clock)
        await courier.join()
        carrying = asyncio.create_task(courier.run(stop))
        async with engine:
            channel = engine.open()
            rows = records(int(life.rate.per_second * (life.seconds + 10)) + 1)
            reading = [asyncio.create_task(feed(channel, rows)), asyncio.create_task(_read(channel))]
            await asyncio.sleep(life.seconds)
            if life.killed:
                carrying.cancel()
                window.take = lambda now, cost=1.0: None  # type: ignore[method-assign]
            for each in reading:
                each.cancel()
            engine.leave(channel)
        carrying.cancel()
        if not life.killed:
            await courier.leave()

    @property
    def exchanges(self) -> list[tuple[float, Exchange, float]]:
        """All requests of all processes, by the service's clock: sent, itself, over."""
        return [
            (each.sent - 1000.0 * number, each, each.over - 1000.0 * number)
            for number, service in enumerate(self.services)
            for each in service.exchanges
        ]

    def busiest(self, per: float) -> int:
        """Give the busiest window, whenever between its sending and its answer a request was received.

        What was given up may be received until its connection is surely gone.
        """
        spans = []
        for sent, each, over in self.exchanges:
            answered = each.outcome is not None and each.outcome.http_status is not None
            spans.append((sent, over if answered else max(sent + TIMEOUT, over) + GRACE))
        return max(busiest_possible(spans, per), busiest([sent for sent, _, _ in self.exchanges], per))

    def used(self, rate: Rate, begin: float, end: float) -> float:
        """Give the share of the limit that was used between two moments."""
        return sum(begin <= sent < end for sent, _, _ in self.exchanges) / ((end - begin) * rate.per_second)

    @property
    def calls_a_request(self) -> float:
        """Give how many calls it took for each request."""
        return self.server.calls / len(self.exchanges)

    @property
    def notes(self) -> list[str]:
        """Give what people were told."""
        return [note for window in self.windows for note in window.notes]


async def _read(channel: Any) -> None:
    await collect(channel)


def accept(latency: float) -> Callable[[Exchange], tuple[float, Outcome]]:
    """Answer after so long, give or take half of it."""
    chance = random.Random(1)
    return lambda _: (chance.uniform(0.5, 1.5) * latency, ACCEPTED)


def history(
    lives: list[Life],
    script: Callable[[World], Coroutine[Any, Any, None]] | None = None,
    *,
    plan: Callable[[Exchange], tuple[float, Outcome]] | None = None,
    server: Callable[[], FakeServer] = FakeServer,
    known: bool = True,
) -> World:
    """Let all that happen, and what the script does to the server meanwhile; `known`, the workspace is no new one."""

    async def begin() -> World:
        world = World(server(), plan or accept(0.1))
        if known:
            world.server.remember(lives[0].rate)
        doing = asyncio.create_task(script(world)) if script else None
        await asyncio.gather(*map(world.live, lives), return_exceptions=False)
        if doing is not None:
            doing.cancel()
        return world

    found: World = run_virtually(begin)
    return found
