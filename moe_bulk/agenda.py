"""Whose turn it is: records that may go, that wait to be tried again, for one before them, or for their user's limits.

Plain code that is told the time. Channels take turns, so that a single row is not kept waiting behind another stream's
backlog; and so do the records that may go and those that were held back because their user had enough, so that neither
keeps the other waiting.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Protocol

from moe_bulk.lanes import Lanes, Ticket
from moe_bulk.outcome import ATTEMPTS_KEPT, Attempt, Outcome, Result, Status, hashed
from moe_bulk.record import new_tuple
from moe_bulk.users import HeldBack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from moe_bulk.record import Record
    from moe_bulk.retry import Trials
    from moe_bulk.users import Users

ROUGH_ROW_BYTES = 1500
"""What a row takes in memory on top of its text: objects, dictionaries, lanes."""


class Watcher(Protocol):
    """Is told of every request of a sender as it happens."""

    def sent(self, at: float, *, again: bool) -> None:
        """A request leaves at boot-clock second `at`; `again` where it is not its record's first."""

    def answered(self, *attempts: Attempt) -> None:
        """They are over: answered, or given up."""


class Screen(Protocol):
    """Is asked about every entry that is first in its lanes, whether it need be sent at all."""

    def ask(self, entry: Entry) -> None:
        """Look at an entry; the engine is told what came of it."""

    def withdraw(self) -> list[Entry]:
        """Give back those that it was asked about and said nothing of yet."""

    def is_stale(self, entry: Entry) -> bool:
        """True where its answer was too long ago: it has to be asked again before the entry is sent."""

    def settled(self, entry: Entry, status: Status) -> None:
        """Take in the last word on an entry that had to be sent."""


class Sender(Protocol):
    """Where records come from and results go to: a stream of rows that takes turns with others."""

    halted: bool
    """True when no more of its records are to be sent."""
    ready: deque[Entry]
    """Its entries that may be sent; the agenda's to fill."""
    parked: int
    """How many of its entries wait behind others, or for their user's limits; the agenda's to count."""
    retrying: int
    """How many of its entries wait to be tried again; the agenda's to count."""
    on_their_way: int
    """How many of its requests are; the flights' to count."""
    watcher: Watcher | None
    screen: Screen | None
    cleared: int
    """How many of its entries passed the screen and are on their way or about to be sent; the agenda's to count."""

    def settled(self, *results: Result) -> None:
        """Take in the last words on some of its records."""

    def wake(self) -> None:
        """Let whoever waits for its results, or to put records in, look again."""


class Entry(Ticket):
    """A record on its way: its place in the lanes, and what it has been through.

    `own_key` is the first of `Device.keys`, `hashes` are those of the others, `keys` is what lanes compare: both.
    """

    __slots__ = ("attempts", "cell", "cleared", "hashes", "own_key", "record", "sender", "trials")

    def __init__(self, record: Record, sender: Sender) -> None:
        # Lanes compare the device's own key whole and the others by their hashes, which the result's line needs anyhow.
        # Two keys with one hash would only make a row wait for a stranger. The tokens themselves are in the record.
        self.own_key, *others = record.device.keys()
        self.hashes = hashed(others)
        self.keys = (self.own_key, *self.hashes)
        self.waits = 0  # as `Ticket` begins: to call it for each would cost as much as all of this
        self.followers = None
        self.record = record
        self.sender = sender
        self.cell = 0
        """Where its user is counted; the agenda's to set."""
        self.cleared = False
        """True when its sender's screen said that it has to be sent; the agenda's to set."""
        self.trials: Trials | None = None
        """What it has been through; None while no attempt had to be judged by itself, as is so for most rows."""
        self.attempts: tuple[Attempt, ...] = ()
        """The last `ATTEMPTS_KEPT` of them."""

    @property
    def size(self) -> int:
        """Bytes, about: the row's text is held twice, as it was read and as what was made of it."""
        device = self.record.device
        text = sum(map(len, device.attributes.values())) + len(device.customer_id) + len(device.device_id)
        return ROUGH_ROW_BYTES + 2 * text

    @property
    def tries(self) -> int:
        """How many attempts are over."""
        return len(self.attempts) if self.trials is None else self.trials.attempts

    def tried(self, attempt: Attempt) -> None:
        """Note an attempt that is over."""
        self.attempts = (*self.attempts[1 - ATTEMPTS_KEPT :], attempt) if self.attempts else (attempt,)

    def result(self, status: Status, outcome: Outcome, settled_at: float) -> Result:
        """The last word on the record's row; `settled_at` is epoch seconds."""
        record = self.record
        row, device = record.row, record.device
        fields = (
            row.position,
            status,
            row,
            device.customer_id,
            device.device_id,
            outcome.http_status,
            outcome.error_type,
            None if status is Status.ACCEPTED else outcome.reason or outcome.error,
            outcome.request_id,
            self.attempts,
            self.tries,
            settled_at,
            record.mapping,
            (self.own_key,),
            self.hashes,
        )
        return new_tuple(Result, fields)


class Agenda:
    """Admits entries in input order and names the next one that may be sent.

    `users` is told by others of each request, and says here whose user has had enough for now. `on_room` is called when
    entries may be admitted again after the lanes were full.
    """

    def __init__(self, users: Users, on_room: Callable[[], None] = lambda: None) -> None:
        self.lanes: Lanes[Entry] = Lanes(on_room=on_room)
        self._users = users
        self._held: HeldBack[Entry] = HeldBack(users)
        self._held_go_first = False
        self._turns: deque[Sender] = deque()
        self._retries: list[tuple[float, int, Entry]] = []
        self._numbers = count()

    def admit(self, *entries: Entry) -> None:
        """Queue new entries of one sender, each behind all that share a key with it."""
        cell_of = self._users.cell
        for entry in entries:
            entry.cell = cell_of(entry.record.device.customer_id)
        free = self.lanes.admit(*entries)
        entries[0].sender.parked += len(entries) - len(free)
        if free:
            self._first(free)

    def _first(self, entries: Sequence[Entry]) -> None:
        """They are first in all their lanes: they may go, or are looked at by who knows whether they need go.

        All are of one sender.
        """
        if (screen := entries[0].sender.screen) is None:
            self._ready(entries)
        else:
            for entry in entries:
                screen.ask(entry)

    def clear(self, entry: Entry) -> None:
        """Queue an entry that passed its sender's screen."""
        entry.cleared = True
        entry.sender.cleared += 1
        self._ready([entry])

    def ask_again(self, entry: Entry) -> None:
        """Take back that an entry may be sent, and have it looked at once more."""
        self._no_longer_cleared(entry)
        self._first([entry])

    def _no_longer_cleared(self, entry: Entry) -> None:
        entry.sender.cleared -= entry.cleared
        entry.cleared = False

    def again(self, entry: Entry, due: float) -> None:
        """Queue an entry for another try at `due`; its lanes stay taken."""
        sender = entry.sender
        sender.retrying += 1
        sender.cleared -= entry.cleared
        heapq.heappush(self._retries, (due, next(self._numbers), entry))
        sender.wake()  # up to some number, what waits to be tried again takes none of its room

    def done(self, *entries: Entry) -> None:
        """These entries are settled or withdrawn: those behind them may go."""
        gone: Sequence[Entry] = entries
        while gone:
            for entry in gone:
                if entry.cleared:
                    self._no_longer_cleared(entry)
            freed, gone = self.lanes.release(*gone), []
            for entry in freed:
                entry.sender.parked -= 1
                if entry.sender.halted:
                    gone.append(entry)
                else:
                    self._first([entry])

    def next(self, now: float, *, retries_first: bool = True) -> Entry | None:
        """Take the next entry that may be sent, if there is one; it has room for the user until another one is sent.

        Retries that are due go before the other entries of their stream, or wait until there are no others.
        """
        if self._retries and (retries_first or not self._turns):
            self._take_up_retries(now, first=retries_first)
        if not self._held.queues:
            return self._next_ready(now, retries_first=retries_first)
        self._held_go_first = not self._held_go_first
        if self._held_go_first:
            return self._next_held(now) or self._next_ready(now, retries_first=retries_first)
        return self._next_ready(now, retries_first=retries_first) or self._next_held(now)

    def _take_up_retries(self, now: float, *, first: bool) -> None:
        """Queue those that are due; where they do not go `first`, one is enough."""
        while self._retries and self._retries[0][0] <= now and (first or not self._turns):
            entry = heapq.heappop(self._retries)[2]
            entry.sender.retrying -= 1
            entry.sender.cleared += entry.cleared
            self._ready([entry], first=first)

    def _next_ready(self, now: float, *, retries_first: bool) -> Entry | None:
        """Take the next of those that wait for nothing; those whose user has had enough are held back on the way."""
        while self._turns:
            sender = self._turns.popleft()
            entry = sender.ready.popleft()
            if sender.ready:
                self._turns.append(sender)
            if entry.cell not in self._held.queues and self._users.has_room(entry.cell, now):
                return entry
            self._held.hold(entry, entry.cell, now, first=retries_first and bool(entry.attempts))
            self.lanes.park(entry)
            sender.parked += 1
            sender.cleared -= entry.cleared
            sender.wake()  # what is parked takes none of its room
        return None

    def _next_held(self, now: float) -> Entry | None:
        entry = self._held.next(now)
        if entry is not None:
            self._unpark(entry)
        return entry

    def _unpark(self, entry: Entry) -> None:
        self.lanes.unpark(entry)
        entry.sender.parked -= 1
        entry.sender.cleared += entry.cleared

    def next_due(self) -> float | None:
        """When to look again once `next` has nothing more: a retry is due, or the user of those held back has room."""
        held_due = self._held.next_due()
        if not self._retries:
            return held_due
        return self._retries[0][0] if held_due is None else min(self._retries[0][0], held_due)

    def withdraw(self, sender: Sender) -> None:
        """Forget all that a halted sender has queued; it costs next to nothing where that is nothing."""
        gone = list(sender.ready)
        if sender.ready:
            self._turns.remove(sender)
            sender.ready.clear()
        if sender.retrying:
            retries = [entry for _, _, entry in self._retries if entry.sender is sender]
            sender.cleared += sum(entry.cleared for entry in retries)
            gone += retries
            self._retries = [waiting for waiting in self._retries if waiting[2].sender is not sender]
            heapq.heapify(self._retries)
            sender.retrying = 0
        if sender.screen is not None:
            gone += sender.screen.withdraw()
        if sender.parked:
            for entry in self._held.take_out(lambda held: held.sender is sender):
                self._unpark(entry)
                gone.append(entry)
        self.done(*gone)

    @property
    def held_back(self) -> bool:
        """True while nothing may go but what its users' limits hold back."""
        return bool(self._held) and not self._turns

    @property
    def retrying(self) -> int:
        """Entries that wait to be tried again."""
        return len(self._retries)

    def _ready(self, entries: Sequence[Entry], *, first: bool = False) -> None:
        sender = entries[0].sender
        if not sender.ready:
            self._turns.append(sender)
        if first:
            sender.ready.extendleft(entries)
        else:
            sender.ready.extend(entries)
