"""Attempts that are over: all who count requests are told, and what the policy says of the record is done.

Nearly all end in an acceptance. Those are taken in many at once, each step for all of them before the next step: code
that does one thing runs several times as fast.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

from moe_bulk.flights import ABORTED
from moe_bulk.outcome import Attempt, Outcome, Status, Verdict
from moe_bulk.record import new_tuple
from moe_bulk.retry import Settle, Trials, Wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from moe_bulk.agenda import Agenda, Entry, Sender
    from moe_bulk.clock import Clock
    from moe_bulk.errors import RunStopped
    from moe_bulk.pacing import Pace, Slot
    from moe_bulk.retry import Policy
    from moe_bulk.users import Users

    Landed: TypeAlias = tuple[Entry, Slot, Outcome, float]
    """An attempt that is over: whose, its slot, what it came to, and when (boot-clock seconds)."""


_entry, _sender = itemgetter(0), attrgetter("sender")


class Landing:
    """Takes in attempts in the order in which they end."""

    def __init__(self, pace: Pace, policy: Policy, users: Users, agenda: Agenda, clock: Clock) -> None:
        self._pace = pace
        self._policy = policy
        self._users = users
        self._agenda = agenda
        self._clock = clock

    def take_in(self, accepted: Sequence[Landed]) -> None:
        """Take in acceptances, at least one, in the order in which they came, and nothing else came between them.

        None tells that the allowance is used up.
        """
        self._pace.accepted([(slot, now) for _, slot, _, now in accepted])
        self._users.answered([entry.cell for entry, _, _, _ in accepted], accepted[-1][3])
        self._note_attempts(accepted)
        self._policy.accepted(accepted)
        self._settle(accepted, Status.ACCEPTED)

    def judge(self, landed: Landed) -> RunStopped | None:
        """Take in one attempt, whatever it came to; the error that is to stop everything, where that follows."""
        entry, slot, outcome, now = landed
        self._pace.answered(slot, outcome, now)
        if outcome.http_status is None:
            self._users.given_up(entry.cell, slot.taken, now)
        else:
            self._users.answered([entry.cell], now)
        self._note_attempts([landed])
        if outcome is ABORTED and entry.sender.halted:  # our own doing: it says nothing about the service
            self._policy.outage.withdrawn(entry, now)
            self._agenda.done(entry)
            return None
        if entry.trials is None:
            entry.trials = Trials()
        decision = self._policy.decide(entry, outcome, entry.trials, now)
        if entry.sender.halted and outcome.verdict not in (Verdict.ACCEPTED, Verdict.REJECTED):
            self._agenda.done(entry)  # being stopped is no failure of the record: it stays unsettled
            return None
        if isinstance(decision, Settle):
            self._settle([landed], decision.status)
        elif isinstance(decision, Wait):
            self._agenda.again(entry, now + decision.seconds)
        else:
            return decision.error
        return None

    def _note_attempts(self, over: Sequence[Landed]) -> None:
        """Tell their records, and who watches, what attempts were."""
        zero = self._clock.zero  # what `epoch` adds, which would be a call for each
        for entry, slot, outcome, now in over:
            taken = slot.taken
            fields = (zero + taken, taken, (now - taken) * 1000, outcome.http_status, outcome.error)
            entry.tried(new_tuple(Attempt, fields))
        for sender, of_one in _by_sender(over):
            if sender.watcher is not None:
                sender.watcher.answered(*[entry.attempts[-1] for entry, _, _, _ in of_one])

    def _settle(self, over: Sequence[Landed], status: Status) -> None:
        """The last words on these records were said."""
        zero = self._clock.zero  # as above
        entries = [entry for entry, _, _, _ in over]
        for entry in entries:
            if (screen := entry.sender.screen) is not None:
                screen.settled(entry, status)
        self._agenda.done(*entries)
        for sender, of_one in _by_sender(over):
            sender.settled(*[entry.result(status, outcome, zero + now) for entry, _, outcome, now in of_one])


def _by_sender(over: Sequence[Landed]) -> Iterable[tuple[Sender, Iterable[Landed]]]:
    """Those of one sender together that follow each other: nearly always all of them."""
    senders = list(map(_sender, map(_entry, over)))
    if senders.count(senders[0]) == len(senders):
        return [(senders[0], over)]
    return groupby(over, lambda landed: _sender(_entry(landed)))
