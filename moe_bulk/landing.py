"""Attempts that are over: all who count requests are told, and what the policy says of the record is done.

Nearly all end in an acceptance. Those are taken in many at once, each step for all of them before the next step: code
that does one thing runs several times as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_bulk.flights import ABORTED
from moe_bulk.outcome import Attempt, Outcome, Status, Verdict
from moe_bulk.record import new_tuple
from moe_bulk.retry import Settle, Wait

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from moe_bulk.agenda import Agenda, Entry
    from moe_bulk.clock import Clock
    from moe_bulk.errors import RunStopped
    from moe_bulk.pacing import Pace, Slot
    from moe_bulk.retry import Policy
    from moe_bulk.users import Users

    Landed: TypeAlias = tuple[Entry, Slot, Outcome, float]
    """An attempt that is over: whose, its slot, what it came to, and when (boot-clock seconds)."""


class Landing:
    """Takes in attempts in the order in which they end."""

    def __init__(self, pace: Pace, policy: Policy, users: Users, agenda: Agenda, clock: Clock) -> None:
        self._pace = pace
        self._policy = policy
        self._users = users
        self._agenda = agenda
        self._clock = clock

    def take_in(self, accepted: Sequence[Landed]) -> None:
        """Take in acceptances that nothing else came between; none tells that the allowance is used up."""
        self._pace.accepted([(slot, now) for _, slot, _, now in accepted])
        self._users.answered([entry.cell for entry, _, _, _ in accepted], accepted[-1][3])
        for landed in accepted:
            self._note_attempt(landed)
        self._policy.accepted([(entry, outcome, entry.trials, now) for entry, _, outcome, now in accepted])
        for landed in accepted:
            self._settle(landed, Status.ACCEPTED)

    def judge(self, landed: Landed) -> RunStopped | None:
        """Take in one attempt, whatever it came to; the error that is to stop everything, where that follows."""
        entry, slot, outcome, now = landed
        self._pace.answered(slot, outcome, now)
        if outcome.http_status is None:
            self._users.given_up(entry.cell, slot.taken, now)
        else:
            self._users.answered([entry.cell], now)
        self._note_attempt(landed)
        if outcome is ABORTED and entry.sender.halted:  # our own doing: it says nothing about the service
            self._policy.outage.withdrawn(entry, now)
            self._agenda.done(entry)
            return None
        decision = self._policy.decide(entry, outcome, entry.trials, now)
        if entry.sender.halted and outcome.verdict not in (Verdict.ACCEPTED, Verdict.REJECTED):
            self._agenda.done(entry)  # being stopped is no failure of the record: it stays unsettled
            return None
        if isinstance(decision, Settle):
            self._settle(landed, decision.status)
        elif isinstance(decision, Wait):
            self._agenda.again(entry, now + decision.seconds)
        else:
            return decision.error
        return None

    def _note_attempt(self, landed: Landed) -> None:
        """Tell its record, and who watches, what an attempt was."""
        entry, slot, outcome, now = landed
        taken = slot.taken
        fields = (self._clock.epoch(taken), taken, (now - taken) * 1000, outcome.http_status, outcome.error)
        attempt = new_tuple(Attempt, fields)
        entry.tried(attempt)
        if (watcher := entry.sender.watcher) is not None:
            watcher.answered(attempt)

    def _settle(self, landed: Landed, status: Status) -> None:
        """The last word on a record was said."""
        entry, _, outcome, now = landed
        sender = entry.sender
        if sender.screen is not None:
            sender.screen.settled(entry, status)
        self._agenda.done(entry)
        sender.settled(entry.result(status, outcome, self._clock.epoch(now)))
