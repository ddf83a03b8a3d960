"""A model of the service with seeded faults, and whole runs of the engine against it on a virtual clock.

A seed makes a `World`: rows with their keys, a pace, and everything that will go wrong. `play` delivers the rows in as
many sessions as it takes, kills included, and gives the `Story` of it: what was sent, applied, judged and settled.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moe_bulk.config import Rate, Retry
from moe_bulk.errors import RunStopped
from moe_bulk.outcome import Outcome, Status, Verdict
from moe_bulk.retry import Decision, Policy, Settle, Trials, Wait
from tests.builders import (
    ACCEPTED,
    BROKEN,
    DOOMED,
    REJECTED,
    SILENCE,
    TIMEOUT,
    Exchange,
    Machine,
    collect,
    engine_on,
    feed,
    record,
    throttled,
)
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from moe_bulk.outcome import Result
    from moe_bulk.record import Record
    from moe_bulk.retry import HasTrials

RESET = Outcome(Verdict.TROUBLE, error="connection lost", reason="connection lost")
REFUSED = Outcome(Verdict.TROUBLE, error="connection refused", reason="connection refused")
TRUNCATED = Outcome(Verdict.TROUBLE, 200, reason="the answer is no JSON object")
CRASHED = Outcome(Verdict.TROUBLE, 500, "InternalError", "something broke")

MOST_SESSIONS = 40
LONGEST_SESSION = 6 * 3600.0
"""Virtual seconds: whoever takes longer than this waits for something that never comes."""


@dataclass(frozen=True)
class Fate:
    """What becomes of one request: when it is over and how, and after which share of that time it was applied."""

    seconds: float
    outcome: Outcome
    applied: float | None = None


@dataclass(frozen=True)
class Disaster:
    """Begins with a request and lasts so many seconds: the service is away, hangs, or is 20 times slower."""

    request: int
    seconds: float
    kind: str


@dataclass(frozen=True)
class World:
    """Everything that a seed decides."""

    seed: int
    rows: tuple[Record, ...]
    rate: Rate
    in_flight: int
    retry: Retry
    latency: float
    weights: tuple[int, ...]
    disasters: tuple[Disaster, ...]
    poison: frozenset[int] = frozenset()
    """Rows at which the service always breaks."""
    wrong: frozenset[int] = frozenset()
    """Rows that are refused for what they are."""
    forbidden: frozenset[int] = frozenset()
    """Rows that a firewall dislikes."""
    kills: tuple[float, ...] = ()
    """Seconds after which each of the first sessions is killed."""

    @property
    def undeliverable(self) -> frozenset[int]:
        """Rows that nobody can deliver."""
        return self.poison | self.wrong | self.forbidden


# --- the world that a seed makes -------------------------------------------------------------------------------------


def strangers(chance: random.Random, count: int) -> list[dict[str, str]]:
    """Make rows that share nothing."""
    return [{} for _ in range(count)]


def hot(chance: random.Random, count: int) -> list[dict[str, str]]:
    """Make rows of which most are of one device."""
    return [{"customer_id": "u", "device_id": "hot"} if chance.random() < 0.7 else {} for _ in range(count)]


def tokens(chance: random.Random, count: int) -> list[dict[str, str]]:
    """Make devices that share tokens."""
    return [{"push_id": f"t-{chance.randrange(1 + count // 3)}"} for _ in range(count)]


def tangled(chance: random.Random, count: int) -> list[dict[str, str]]:
    """Make rows that share any of their keys with any others."""
    made = []
    for _ in range(count):
        keys = {}
        for name, share in (("device_id", 0.5), ("push_id", 0.5), ("moe_gaid", 0.2), ("idfv", 0.2)):
            if chance.random() < share:
                keys[name] = f"{name}-{chance.randrange(1 + count // 2)}"
        made.append({**keys, "customer_id": "u"} if "device_id" in keys else keys)
    return made


GRAPHS = (strangers, strangers, hot, tokens, tangled)
WEATHERS = (
    (100, 0, 0, 0, 0, 0, 0, 0),
    (100, 2, 2, 1, 1, 2, 0, 0),
    (100, 2, 2, 1, 1, 1, 3, 1),
    (100, 20, 20, 5, 10, 20, 5, 5),
)
"""How often a request is fine, reset before or after being applied, hung, truncated, broken, throttled in two ways."""


def world_of(seed: int) -> World:
    """Make the world of a seed."""
    chance = random.Random(seed)
    count = chance.choice((10, 20, 30, 40, 40, 50, 60, 100, 200))
    rows = chance.choice(GRAPHS)(chance, count)

    def some(most: int) -> frozenset[int]:
        return frozenset(chance.sample(range(count), chance.randint(0, most)))

    return World(
        seed,
        tuple(record(number, **keys) for number, keys in enumerate(rows)),
        chance.choice((Rate(6000, 60.0), Rate(1200, 60.0), Rate(20, 5.0), Rate(7, 1.0))),
        chance.choice((1, 3, 20, 64, 64)),
        Retry(outage_limit=chance.choice((1800.0, 1800.0, 240.0))),
        chance.choice((0.02, 0.3, 0.3, 0.7)),
        chance.choice(WEATHERS),
        tuple(
            Disaster(chance.randrange(count), chance.uniform(1, 600), chance.choice(("down", "hung", "slow")))
            for _ in range(chance.choice((0, 1, 1, 1, 2)))
        ),
        poison=chance.choice((frozenset(), some(2), some(min(18, count)))),
        wrong=some(min(8, count)),
        forbidden=chance.choice((frozenset(), some(2))),
        kills=tuple(chance.choice((0.5, 5.0, 60.0)) * chance.random() for _ in range(chance.choice((0, 0, 1, 3)))),
    )


# --- the service -----------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Keeps for every key which row was applied last, and when each was; its faults are those of its world."""

    world: World
    now: Callable[[], float]
    chance: random.Random
    exchanges: list[Exchange] = field(default_factory=list)
    applied: list[tuple[Exchange, float]] = field(default_factory=list)
    """In the order of application, which is not that of the answers."""
    ends: dict[Disaster, tuple[float, float]] = field(default_factory=dict)
    """When those disasters that have begun began, and when they end."""

    async def attempt(self, sent: Record) -> Outcome:
        """Receive one request."""
        exchange = Exchange(sent, self.now())
        self.exchanges.append(exchange)
        for disaster in self.world.disasters:
            if len(self.exchanges) > disaster.request and disaster not in self.ends:
                self.ends[disaster] = (self.now(), self.now() + disaster.seconds)
        fate = self._fate(exchange)
        try:
            await self._befall(exchange, fate)
        except asyncio.CancelledError:
            # Whoever sent it is gone. The service may have it, and apply it, before anybody else comes.
            if self.chance.random() < 0.5 and fate.applied is not None:
                self.applied.append((exchange, self.now()))
            raise
        finally:
            exchange.over = self.now()
        exchange.outcome = fate.outcome if fate.seconds <= TIMEOUT else SILENCE
        return exchange.outcome

    async def _befall(self, exchange: Exchange, fate: Fate) -> None:
        last = min(fate.seconds, TIMEOUT)
        if fate.applied is None or fate.applied * fate.seconds > last:
            await asyncio.sleep(last)
            return
        await asyncio.sleep(fate.applied * fate.seconds)
        self.applied.append((exchange, self.now()))
        await asyncio.sleep(last - fate.applied * fate.seconds)

    def _fate(self, exchange: Exchange) -> Fate:
        kinds = {disaster.kind for disaster, (_, end) in self.ends.items() if self.now() < end}
        seconds = self.world.latency * self.chance.uniform(0.5, 1.0) * (20 if "slow" in kinds else 1)
        if "hung" in kinds:
            return Fate(1e6, SILENCE)
        if "down" in kinds:
            return Fate(seconds, self.chance.choice((BROKEN, REFUSED, RESET)))
        number = exchange.number
        if number in self.world.forbidden:
            return Fate(seconds, DOOMED)
        if number in self.world.poison:
            return Fate(seconds, CRASHED)
        if number in self.world.wrong:
            return Fate(seconds, REJECTED)
        return self._weather(seconds)

    def _weather(self, seconds: float) -> Fate:
        applied = self.chance.random()
        fates = (
            Fate(seconds, ACCEPTED, applied),
            Fate(seconds, RESET),
            Fate(seconds, RESET, applied),
            Fate(1e3, SILENCE, applied / 30),
            Fate(seconds, TRUNCATED, applied),
            Fate(seconds, self.chance.choice((BROKEN, CRASHED, RETRY_LATER)), self.chance.choice((None, applied))),
            Fate(seconds, throttled()),
            Fate(seconds, throttled(self.chance.uniform(0, 5))),
        )
        return self.chance.choices(fates, self.world.weights)[0]


RETRY_LATER = Outcome(Verdict.TROUBLE, 503, reason="come back later", retry_after=3.0)


# --- the run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One decision of the policy: about which row, when, what it had been through by then, what follows."""

    number: int
    now: float
    outcome: Outcome
    tries: int
    free: int
    to_blame: bool
    declared: tuple[bool, bool]
    """Whether an outage was, before and after it."""
    decision: Decision

    @property
    def due(self) -> float:
        """When its row may be sent again."""
        return self.now + self.decision.seconds if isinstance(self.decision, Wait) else float("inf")


class Watched(Policy):
    """The real policy, with a record of all that it decided."""

    def __init__(self, retry: Retry, draw: Callable[[], float]) -> None:
        super().__init__(retry, draw)
        self.judged: list[Judged] = []

    def decide(self, record: Hashable, outcome: Outcome, trials: Trials, now: float) -> Decision:
        """Decide as ever."""
        before = self.outage.declared
        decision = super().decide(record, outcome, trials, now)
        self._note(record, outcome, trials, now, (before, self.outage.declared), decision)
        return decision

    def accepted(self, landed: Iterable[tuple[HasTrials, object, Outcome, float]]) -> None:
        """Take in as ever."""
        landed, before = list(landed), self.outage.declared
        super().accepted(landed)
        for accepted, _, outcome, now in landed:
            trials = accepted.trials or Trials(1)
            declared = (before, self.outage.declared)
            self._note(accepted, outcome, trials, now, declared, Settle(Status.ACCEPTED))
            before = self.outage.declared

    def _note(
        self,
        record: object,
        outcome: Outcome,
        trials: Trials,
        now: float,
        declared: tuple[bool, bool],
        decision: Decision,
    ) -> None:
        number = record.record.position.line  # type: ignore[attr-defined]  # an agenda's entry
        self.judged.append(Judged(number, now, outcome, trials.tries, trials.free, trials.to_blame, declared, decision))


@dataclass
class Session:
    """One life of the engine: what it was given, what it sent and decided, what was settled and kept."""

    rows: list[Record]
    exchanges: list[Exchange] = field(default_factory=list)
    applied: list[tuple[Exchange, float]] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    error: RunStopped | None = None
    killed: bool = False


@dataclass(repr=False)  # asyncio.Runner would spell out all of it
class Story:
    """All sessions, to the end."""

    world: World
    server: Server
    sessions: list[Session] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        """What was settled, and not forgotten in a kill."""
        return [result for session in self.sessions for result in session.results]


def play(world: World) -> Story:
    """Deliver a world's rows in as many sessions as it takes."""

    async def main() -> Story:
        machine, chance = Machine(), random.Random(world.seed + 1)
        story = Story(world, Server(world, machine.now, chance))
        settled: set[int] = set()
        while len(settled) < len(world.rows) and len(story.sessions) < MOST_SESSIONS:
            kill = world.kills[len(story.sessions)] if len(story.sessions) < len(world.kills) else None
            left = [row for row in world.rows if row.position.line not in settled]
            session = await _session(story, machine, left, kill)
            story.sessions.append(session)
            settled.update(result.position.line for result in session.results)
        return story

    story: Story = run_virtually(main)
    return story


async def _session(story: Story, machine: Machine, rows: list[Record], kill: float | None) -> Session:
    world, server, session = story.world, story.server, Session(rows)
    policy = Watched(world.retry, server.chance.random)
    before = len(server.exchanges), len(server.applied)
    delivering = asyncio.create_task(_deliver(server, machine, policy, session, world))
    try:
        async with asyncio.timeout(LONGEST_SESSION):
            await asyncio.wait([delivering], timeout=kill)
    finally:
        session.killed = not delivering.done()
        delivering.cancel()
        await asyncio.wait([delivering])
    if session.killed:  # what was not on the disk yet is forgotten: the last ones
        del session.results[len(session.results) - server.chance.randint(0, min(5, len(session.results))) :]
    else:
        delivering.result()
    session.exchanges, session.applied = server.exchanges[before[0] :], server.applied[before[1] :]
    session.judged = policy.judged
    return session


async def _deliver(server: Server, machine: Machine, policy: Policy, session: Session, world: World) -> None:
    settings: dict[str, Any] = {"rate": world.rate, "in_flight": world.in_flight, "policy": policy}
    try:
        async with engine_on(server, machine.clock, **settings) as engine:
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, session.rows))
            try:
                await collect(channel, session.results)
            finally:
                engine.leave(channel)
                feeding.cancel()
                await asyncio.wait([feeding])
    except RunStopped as error:
        session.error = error
