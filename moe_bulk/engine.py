"""Workers under one task group: takes records, makes attempts, says the last word on each.

It takes the attempt as a callable and knows neither HTTP nor files. One worker at a time stands at the gate, where it
waits for a record and for permission to send; behind the gate are as many requests as the pace needs at the latency of
the day. What follows from an outcome is decided by `retry` and done by `landing`, whose turn it is by `agenda`, when to
send by `pacing`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Self, cast

import anyio

from moe_bulk.agenda import Agenda, Entry
from moe_bulk.bell import Bell
from moe_bulk.channel import Channel
from moe_bulk.errors import Interrupted
from moe_bulk.flights import ABORTED, Flights
from moe_bulk.gate import Gate
from moe_bulk.landing import Landing
from moe_bulk.outcome import Outcome, Status, Verdict
from moe_bulk.permission import STOOD_STILL_SECONDS, Permission
from moe_bulk.together import Together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

    from moe_bulk.agenda import Screen, Watcher
    from moe_bulk.clock import Clock
    from moe_bulk.errors import MoeBulkError, RunStopped
    from moe_bulk.landing import Landed
    from moe_bulk.pacing import Pace, Slot
    from moe_bulk.record import Record
    from moe_bulk.retry import Policy
    from moe_bulk.users import Users

DRAIN_SECONDS = 8.0
"""How long a stop waits for the answers to what is on its way: a container is killed 10 s after it is told to end."""

ROOM = 300
"""Rows that one channel has room for on top of twice what may be in flight: two seconds' worth at the usual limit.

With a thousand, what was read has left the processor's own cache before it is sent: in turns within one process a row
cost 4 to 8 % more.
"""

NOT_SENT = Outcome(Verdict.ACCEPTED)
"""What there is to tell of a record that was accepted before."""


class Engine:
    """Delivers the records of any number of channels at one pace and in one order.

    `attempt` makes exactly one attempt and raises for no trouble of the record or the network; cancelling it aborts its
    connection. At most `in_flight` requests are on their way.
    """

    def __init__(
        self,
        attempt: Callable[[Record], Awaitable[Outcome]],
        pace: Pace,
        policy: Policy,
        users: Users,
        clock: Clock,
        in_flight: int,
    ) -> None:
        self.agenda = Agenda(users, self._tell_of_room)
        self._users = users
        self._attempt = attempt
        self._pace = pace
        self._policy = policy
        self._clock = clock
        self.most_in_flight = in_flight
        self._channels: set[Channel] = set()
        self._flights = Flights()
        self._workers = 0
        self._idle = 0
        """Workers that have no record: at the gate, or on their way there."""
        self._gate = Gate()
        self._queued = Bell()
        """Rung when there may be another entry to send."""
        self._lacks_entry = False
        """True while whoever stands at the gate waits for an entry."""
        self._permission = Permission(pace, policy.outage, clock)
        self._over = self._permission.over
        self._landing = Landing(pace, policy, users, self.agenda, clock)
        self._accepted: Together[Landed] = Together(self._take_in)
        """Attempts that ended in an acceptance, as nearly all do, and are not taken in yet."""
        self._error: RunStopped | None = None
        self.bug: Exception | None = None
        """What ended a task of the engine that nothing should have ended; whoever waits here is cancelled for it."""
        self._broken = asyncio.Event()
        """Set where a bug showed while acceptances were taken in: mostly in a callback, where it would end nothing."""
        self._stack = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that it was entered in."""

    # -- its life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.push_async_exit(self._close)
        self._tasks.start_soon(self._watch_the_clock)
        self._tasks.start_soon(self._watch_for_bugs)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
        raise first  # as itself, not in a group: the body's own exception, or the bug that ended it

    async def _close(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop, orderly where the block was left in peace and at once where it was not; then end all tasks."""
        self.stop(Interrupted("the uploader was closed"))
        try:
            if kind is None:
                await self._drain()
        finally:
            self._tasks.cancel_scope.cancel()

    def open(self, watcher: Watcher | None = None, screen: Screen | None = None) -> Channel:
        """A new way in and out; `leave` it when done. Records that `screen` does not tell to clear are not sent.

        Raises RuntimeError in another event loop than that which it was entered in: nothing of it works there.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this Uploader was entered in another event loop: enter one of its own in each")
        channel = Channel(self._admit, self.agenda.lanes, self.room, watcher, screen)
        self._channels.add(channel)
        if self._error is not None:
            channel.halt(self._error)
        elif not self._workers:
            self._hire()
        return channel

    def halt(self, channel: Channel, error: MoeBulkError) -> None:
        """Send no more of one channel's records; `error` is raised there once what is on its way has come in.

        What takes longer than `DRAIN_SECONDS` is aborted.
        """
        self._accepted.do_now()  # they came in before
        channel.halt(error)
        self.agenda.withdraw(channel)
        self._ring()
        if channel.on_their_way:
            # A timer, no task: this may be called from a signal's handler, where there is no task to start one from.
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._flights.abort, channel)

    def leave(self, channel: Channel) -> None:
        """Close a channel: what it has not sent yet is not sent, what is on its way ends unheard."""
        self.halt(channel, Interrupted("the stream was left"))
        self._channels.discard(channel)

    def stop(self, error: RunStopped) -> None:
        """Send no more; take in what is on its way for at most `DRAIN_SECONDS`; then raise `error` in every channel."""
        if self._error is None:
            self._error = error
            for channel in self._channels:
                self.halt(channel, error)

    @property
    def room(self) -> int:
        """Rows that each channel has room for."""
        return ROOM + 2 * self.most_in_flight

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._flights)

    @property
    def gate(self) -> str:
        """What whoever stands at the gate waits for at this moment: an `entry`, the `pace`, a `slot`, or nothing."""
        return "entry" if self._lacks_entry else self._permission.waits_for

    @property
    def stopped_by(self) -> RunStopped | None:
        """Why it sends no more, once it does not."""
        return self._error

    @property
    def outage(self) -> bool:
        """True while the service counts as gone."""
        return self._policy.outage.declared

    async def _drain(self) -> None:
        """Take in what is on its way; what takes too long is aborted."""
        with anyio.move_on_after(DRAIN_SECONDS):
            await self._all_in()
        self._flights.abort()
        await self._all_in()

    async def _all_in(self) -> None:
        while self._flights:
            await self._over.wait()

    @asynccontextmanager
    async def beside(self, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Let `work` go on while the block is open; leaving the block cancels it and waits for its end."""
        scope, over = anyio.CancelScope(), anyio.Event()

        async def cancellable() -> None:
            try:
                with scope, self._noting_bugs():
                    await work()
            finally:
                over.set()

        self._tasks.start_soon(cancellable)
        try:
            yield
        finally:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await over.wait()

    async def _watch_the_clock(self) -> None:
        """Tell the pace each second that we are there.

        Abort what is in flight when the loop notices that it stood still: its answers can no longer be dated.
        """
        while True:
            before = self._clock.now()
            await anyio.sleep(1)
            now = self._clock.now()
            if now - before > 1 + STOOD_STILL_SECONDS:
                self._flights.abort()
            self._pace.tick(now)

    async def _watch_for_bugs(self) -> None:
        """End the engine for a bug that showed while acceptances were taken in."""
        await self._broken.wait()
        if self.bug is not None:
            raise self.bug

    # -- a worker's turn: which record, when, and its attempt ------------------------------------------------------

    async def _work(self) -> None:
        with self._noting_bugs():
            task = cast("asyncio.Task[object]", asyncio.current_task())
            while (turn := await self._turn()) is not None:
                entry, slot = turn
                # No await stands between a slot and the first step of its attempt.
                if not self._idle and self._workers < self.most_in_flight:
                    self._hire()
                if (watcher := entry.sender.watcher) is not None:
                    # it leaves later, once there is a connection, and with others: the slot counts from `taken` on
                    watcher.sent(slot.taken, again=bool(entry.attempts))
                self._flights.begin(entry, task)
                try:
                    outcome = await self._attempt(entry.record)
                except asyncio.CancelledError:
                    if not self._flights.was_told_to_end(entry):
                        raise
                    outcome = ABORTED
                finally:
                    self._flights.end(entry)
                self._landed((entry, slot, outcome, self._clock.now()))
                self._idle += 1
                del turn, entry, slot, outcome  # an idle worker holds no record
        self._workers -= 1

    @contextmanager
    def _noting_bugs(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.bug = self.bug or error
            raise

    def _hire(self) -> None:
        self._workers += 1
        self._idle += 1
        self._tasks.start_soon(self._work)

    async def _turn(self) -> tuple[Entry, Slot] | None:
        """Wait at the gate for a record and the permission to send it; None when the engine has stopped."""
        if not self._gate.enter_nowait():
            await self._gate.enter()
        try:
            # Whatever can be had at once is taken at once: a coroutine for each would cost as much as what it does.
            while True:
                now = self._clock.now()
                if (entry := self._take_entry(now)) is None:
                    if (entry := await self._next_entry()) is None:
                        return None
                    now = self._clock.now()
                if not self._permission.spend(now):
                    now = await self._permission.token(now)
                slot = self._permission.slot(entry, now) or await self._permission.wait(entry)
                if slot is not None:
                    if self._policy.outage.declared_at is not None:
                        self._policy.outage.sending(entry)
                    self._users.sent(entry.cell)
                    return entry, slot
                self.agenda.done(entry)
        finally:
            self._gate.leave()
            self._idle -= 1

    async def _next_entry(self) -> Entry | None:
        """Wait for an entry that may be sent, where none is there yet; None when nothing is sent any more."""
        entry = None
        while entry is None and self._error is None:
            due = self.agenda.next_due()
            self._lacks_entry = True
            await self._queued.wait(None if due is None else due - self._clock.now())
            self._lacks_entry = False
            entry = self._take_entry(self._clock.now())
        return entry

    def _take_entry(self, now: float) -> Entry | None:
        """The next entry that may be sent, where there is one."""
        while self._error is None:
            # In an outage a record that failed goes to the end of the queue: each probe is another one.
            entry = self.agenda.next(now, retries_first=not self._policy.outage.suspected)
            if entry is None or (screen := entry.sender.screen) is None or not screen.is_stale(entry):
                return entry
            self.agenda.ask_again(entry)
        return None

    def _admit(self, *entries: Entry) -> None:
        self.agenda.admit(*entries)
        self._queued.ring()

    # -- what a screen says of the entries that it is asked about ----------------------------------------------------

    def clear(self, entry: Entry) -> None:
        """The entry has to be sent."""
        self.agenda.clear(entry)
        self._queued.ring()

    def unchanged(self, entry: Entry) -> None:
        """The entry need not be sent."""
        self.agenda.done(entry)
        self._queued.ring()  # those behind it may be another stream's, which asks nobody
        entry.sender.settled(entry.result(Status.UNCHANGED, NOT_SENT, self._clock.epoch()))

    def give_back(self, entry: Entry) -> None:
        """The entry's sender was halted meanwhile: it stays unsettled."""
        self.agenda.done(entry)
        self._queued.ring()

    # -- what follows from an attempt ------------------------------------------------------------------------------

    def _landed(self, landed: Landed) -> None:
        """Take in what an attempt came to: an acceptance soon, with others, all else at once."""
        entry, _, outcome, _ = landed
        if outcome.verdict is Verdict.ACCEPTED and outcome.remaining != 0 and not entry.sender.halted:
            self._accepted.put(landed)
        else:
            self._accepted.do_now()  # what comes of an outcome depends on those before it
            if (error := self._landing.judge(landed)) is not None:
                self.stop(error)
            self._ring()

    def catch_up(self) -> None:
        """Take in what has come by this moment."""
        self._accepted.do_now()

    def _take_in(self, accepted: list[Landed]) -> None:
        try:
            self._landing.take_in(accepted)
        except Exception as error:  # noqa: BLE001  a bug: in a callback it would end nothing
            self.bug = self.bug or error
            self._broken.set()
        self._ring()

    def _ring(self) -> None:
        """Let all look again who wait for an entry, for a slot, or for the end of what is on its way."""
        self._queued.ring()
        self._over.ring()

    def _tell_of_room(self) -> None:
        """Let all channels look again: one of them may have waited for room in the lanes, which all share."""
        for channel in self._channels:
            channel.wake()
