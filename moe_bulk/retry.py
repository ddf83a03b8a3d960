"""Given an outcome and what the record has been through: settle, wait, or stop the run; and what is an outage.

Plain code that is told the time: the engine asks and obeys.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from moe_bulk.amounts import duration
from moe_bulk.errors import AGAIN, AccountRefused, CredentialsRejected, DestinationWrong, RunStopped, ServiceUnavailable
from moe_bulk.outcome import Outcome, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from moe_bulk.config import Retry

OUTAGE_RECORDS = 20
"""Different records that fail with no sign of life between them: that is no longer their own affair."""
DOOM_RECORDS = 3
SUSPICIOUS = 2
"""Failures in a row: from then on others go before those that failed, to find out what it is. Where few are on their
way and each fails late, these would else use up all their tries before so many others have failed."""
NOT_REACHED = frozenset({"certificate refused", "connection refused", "name not resolved", "no connection"})
"""Troubles in which no record was sent, so that none can be to blame: each try counts like another record's failure."""
FIRST_PROBE = 1.0
LONGEST_PROBE = 30.0
DOCUMENTED = frozenset({"Authentication required", "Authentication Mismatch", "BlockedClient", "Account Suspended"})
"""Kinds of refusals that MoEngage's documentation names: any other text of an answer may repeat a row."""
_STATUSES = frozenset(HTTPStatus)
OUTLIVED_FREE = 3
"""How often a record may fail again, others having got through since its last failure, before it is itself to blame."""


@dataclass(slots=True)
class Trials:
    """What one record has been through: tries that count, tries that were free, failures that others have outlived."""

    tries: int = 0
    free: int = 0
    outlived: int = 0
    _lives_at_failure: int | None = None

    @property
    def attempts(self) -> int:
        """All of them."""
        return self.tries + self.free

    @property
    def to_blame(self) -> bool:
        """True when it failed again and again while others got through: its failures tell nothing of the service."""
        return self.outlived >= OUTLIVED_FREE

    def failed(self, lives: int) -> None:
        """Note a failure; `lives` is the number of signs of life so far."""
        if self._lives_at_failure is not None and lives > self._lives_at_failure:
            self.outlived += 1
        self._lives_at_failure = lives

    def give_back(self) -> None:
        """One of its tries was not its own affair."""
        self.tries -= 1
        self.free += 1


@dataclass(frozen=True, slots=True)
class Settle:
    """The record's last word is said."""

    status: Status


@dataclass(frozen=True, slots=True)
class Wait:
    """Try this record again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the run; this record is not settled."""

    error: RunStopped


Decision = Settle | Wait | Stop

_ACCEPTED = Settle(Status.ACCEPTED)


class HasTrials(Protocol):
    """A record that was tried; `trials` is None where no attempt of it was judged by `Policy.decide`."""

    trials: Trials | None


class Outage:
    """Is the service there? Declared when `OUTAGE_RECORDS` different records fail in a row; ended by a sign of life.

    While it lasts, one record at a time probes, at growing intervals. What the records that led to it have paid, they
    get back.
    """

    def __init__(self, limit: float) -> None:
        self.declared_at: float | None = None
        self.lives = 0
        self.suspected = False
        """True while it is worth finding out whether others fail, too."""
        self._limit = limit
        self._failed: dict[Hashable, list[Trials]] = {}
        """Those that failed since the last sign of life, and whom to give back each try that was paid for."""
        self._in_a_row = 0
        self._interval = FIRST_PROBE
        self._next_probe = 0.0
        self._probing: Hashable | None = None

    @property
    def declared(self) -> bool:
        """True while the service counts as gone."""
        return self.declared_at is not None

    def alive(self) -> None:
        """Records were accepted, or one refused for its own sake: the service is there."""
        self.lives += 1
        if not self._in_a_row:
            return  # nobody failed since the last sign of life
        self._in_a_row = 0
        self.suspected = False
        self._failed.clear()
        self.declared_at = None
        self._probing = None
        self._interval = FIRST_PROBE

    def trouble(self, record: Hashable, trials: Trials, now: float, *, reached: bool = True) -> None:
        """Charge an attempt of `record` that came to nothing, unless the service is to blame."""
        self._in_a_row += 1
        self.suspected = self._in_a_row >= SUSPICIOUS
        if reached:
            trials.failed(self.lives)
        if not self.declared or (reached and trials.to_blame):
            trials.tries += 1
        else:
            trials.free += 1
        if self.declared:
            self.withdrawn(record, now)
        elif not (reached and trials.to_blame):
            self._failed.setdefault(record if reached else object(), []).append(trials)
            if len(self._failed) >= OUTAGE_RECORDS:
                self._declare(now)

    def _declare(self, now: float) -> None:
        self.declared_at = now
        self._next_probe = now + self._interval
        for paid in self._failed.values():
            for trials in paid:
                trials.give_back()
        self._failed.clear()

    def withdrawn(self, record: Hashable, now: float) -> None:
        """An attempt of `record` is over without a sign of life: where it was the probe, the next one may go later."""
        if self.declared_at is not None and record == self._probing:
            self._probing = None
            self._interval = min(LONGEST_PROBE, self._interval * 2)
            # The last look is taken when the patience ends, not after it.
            self._next_probe = min(now + self._interval, self.declared_at + self._limit)

    def send_at(self, now: float) -> float | None:
        """When the next request may be sent: now, at the next probe's time, or None while a probe is on its way."""
        if self.declared_at is None:
            return now
        return None if self._probing is not None else max(now, self._next_probe)

    def holds_back(self, now: float) -> bool:
        """True where nothing may be sent at this moment."""
        again = self.send_at(now)
        return again is None or again > now

    def sending(self, record: Hashable) -> None:
        """`record` is sent: during an outage it is the probe."""
        if self.declared_at is not None:
            self._probing = record

    def over_limit(self, now: float) -> bool:
        """True when the outage has lasted longer than anybody wants to wait."""
        return self.declared_at is not None and now - self.declared_at >= self._limit


class Policy:
    """Decides what follows from each outcome. `draw` gives random numbers from 0 to 1 for the jitter."""

    def __init__(self, retry: Retry, draw: Callable[[], float] = random.random) -> None:
        self.outage = Outage(retry.outage_limit)
        self._retry = retry
        self._draw = draw
        self._doomed: set[Hashable] = set()

    def decide(self, record: Hashable, outcome: Outcome, trials: Trials, now: float) -> Decision:
        """Judge one outcome of `record` (any value that tells records apart) and keep `trials` up to date."""
        if outcome.verdict is Verdict.ACCEPTED:
            trials.tries += 1
            self._alive()
            return _ACCEPTED
        decision = self._decide(record, outcome, trials, now)
        # Whatever ends an outage has ended it by now; a stop for another reason tells more.
        if self.outage.over_limit(now) and not isinstance(decision, Stop):
            return Stop(self._expired())
        return decision

    def accepted(self, landed: Iterable[tuple[HasTrials, object, Outcome, float]]) -> None:
        """As `decide` on each, for acceptances that nothing else came between; all of them are settled.

        Each is a record, its slot, its outcome and when, as `landing` has them; only the record is looked at.
        """
        for record, _, _, _ in landed:
            if record.trials is not None:  # else this was its only try, and needs no note
                record.trials.tries += 1
        self._alive()

    def _alive(self) -> None:
        self._doomed.clear()
        self.outage.alive()

    def _decide(self, record: Hashable, outcome: Outcome, trials: Trials, now: float) -> Decision:
        """What follows from anything but an acceptance."""
        match outcome.verdict:
            case Verdict.REJECTED:
                trials.tries += 1
                self.outage.alive()
                return Settle(Status.REJECTED)
            case Verdict.DOOMED:
                self.outage.withdrawn(record, now)
                return self._refused(record, outcome, trials)
            case Verdict.UNAUTHORIZED | Verdict.MISDIRECTED:
                return Stop(_wrong_door(outcome))
            case Verdict.THROTTLED:
                self.outage.withdrawn(record, now)
                trials.free += 1
                return self._again(outcome, trials)
            case _:  # Verdict.TROUBLE: what was accepted does not come here
                self.outage.trouble(record, trials, now, reached=outcome.error not in NOT_REACHED)
                return self._again(outcome, trials)

    def _expired(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"MoEngage has accepted nothing for {duration(self._retry.outage_limit)} (--outage-limit); "
            f"nothing was given up: {AGAIN} when the service is back. If it accepts other records, it breaks at the "
            "very rows that are left: with --tries 1 each run gives up on some of them"
        )

    def _refused(self, record: Hashable, outcome: Outcome, trials: Trials) -> Decision:
        trials.tries += 1
        self._doomed.add(record)
        if len(self._doomed) < DOOM_RECORDS:
            return Settle(Status.REJECTED)
        self._doomed.clear()
        return Stop(_refused(outcome))

    def _again(self, outcome: Outcome, trials: Trials) -> Decision:
        if trials.tries >= self._retry.tries or trials.free >= self._retry.free_tries:
            return Settle(Status.EXHAUSTED)
        longest = min(self._retry.longest_wait, self._retry.first_wait * 2 ** min(trials.attempts - 1, 30))
        # In an outage the probes' intervals are the waiting: at once at the end of the queue, so each probe is another.
        waits_for_probe = self.outage.declared and outcome.verdict is Verdict.TROUBLE
        backoff = 0.0 if waits_for_probe else self._draw() * longest
        if not outcome.retry_after:  # "0" asks for nothing: a hundred free tries would be gone in a second
            return Wait(backoff)
        return Wait(outcome.retry_after if outcome.verdict is Verdict.THROTTLED else max(backoff, outcome.retry_after))


def _wrong_door(outcome: Outcome) -> RunStopped:
    said = _answer(outcome)
    if outcome.verdict is Verdict.UNAUTHORIZED:
        return CredentialsRejected(
            f"MoEngage refuses the credentials ({said}): check the workspace id, the Data API key "
            f"(dashboard: Settings > Account > APIs) and the data center. With another key {AGAIN}; with another "
            "workspace or data center add --fresh, for that is another run",
            _words(outcome),
        )
    return DestinationWrong(
        f"this is not the Track Device API ({said}): check --data-center or --base-url and the workspace id. With "
        f"others add --fresh, for that is another run; where they were right, {AGAIN} later",
        _words(outcome),
    )


def _refused(outcome: Outcome) -> AccountRefused:
    return AccountRefused(
        f"{DOOM_RECORDS} different records in a row were refused for a reason outside them ({_answer(outcome)}): "
        "the account may be suspended or blocked, or a proxy or firewall on the way dislikes the requests. "
        f"Settle that, then {AGAIN}",
        _words(outcome),
    )


def _answer(outcome: Outcome) -> str:
    """The answer in words that no row can stand in: its status, and its kind where that is a documented one."""
    status = outcome.http_status or 0
    if outcome.error_type in DOCUMENTED:
        return f"{status} {outcome.error_type}"
    phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
    return f"{status} {phrase}".rstrip()


def _words(outcome: Outcome) -> str | None:
    """What the service said of it, free words and all."""
    return ": ".join(filter(None, (outcome.error_type, outcome.reason))) or None
