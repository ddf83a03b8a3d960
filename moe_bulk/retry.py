"""Given an outcome and what the record has been through: settle, wait, or stop the run; and what is an outage.

Plain code that is told the time: the engine asks and obeys.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_bulk.errors import AGAIN, AccountRefused, CredentialsRejected, DestinationWrong, RunStopped, ServiceUnavailable
from moe_bulk.outcome import Outcome, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from moe_bulk.config import Retry

OUTAGE_RECORDS = 20
"""Different records that fail with no sign of life between them: that is no longer their own affair."""
DOOM_RECORDS = 3
FIRST_PROBE = 1.0
LONGEST_PROBE = 30.0
PROBES_FREE = 3
"""Probes that a record may fail before it pays for its tries again, if others are accepted meanwhile."""


@dataclass(slots=True)
class Trials:
    """What one record has been through: tries that count, tries that were free, probes that it failed."""

    tries: int = 0
    free: int = 0
    probes: int = 0
    lives_at_probe: int = 0

    @property
    def attempts(self) -> int:
        """All of them."""
        return self.tries + self.free


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


class Outage:
    """Is the service there? Declared when `OUTAGE_RECORDS` different records fail in a row; ended by a sign of life.

    While it lasts, one record at a time probes, at growing intervals.
    """

    def __init__(self, limit: float) -> None:
        self.declared_at: float | None = None
        self.lives = 0
        self._limit = limit
        self._failed: set[Hashable] = set()
        self._interval = FIRST_PROBE
        self._next_probe = 0.0
        self._probing: Hashable | None = None

    @property
    def declared(self) -> bool:
        """True while the service counts as gone."""
        return self.declared_at is not None

    def alive(self) -> None:
        """A record was accepted or refused for its own sake: the service is there."""
        self.lives += 1
        self._failed.clear()
        self.declared_at = None
        self._probing = None
        self._interval = FIRST_PROBE

    def trouble(self, record: Hashable, now: float) -> bool:
        """Note that an attempt of `record` came to nothing; True where it was the probe."""
        if self.declared_at is None:
            self._failed.add(record)
            if len(self._failed) >= OUTAGE_RECORDS:
                self.declared_at = now
                self._next_probe = now + self._interval
            return False
        if record != self._probing:
            return False
        self._probe_later(now, self.declared_at)
        return True

    def withdrawn(self, record: Hashable, now: float) -> None:
        """An attempt of `record` was answered, but not by a sign of life: a 429, a refusal of the account."""
        if self.declared_at is not None and record == self._probing:
            self._probe_later(now, self.declared_at)

    def _probe_later(self, now: float, declared_at: float) -> None:
        self._probing = None
        self._interval = min(LONGEST_PROBE, self._interval * 2)
        # The last look is taken when the patience ends, not after it.
        self._next_probe = min(now + self._interval, declared_at + self._limit)

    def send_at(self, now: float) -> float | None:
        """When the next request may be sent: now, at the next probe's time, or None while a probe is on its way."""
        if not self.declared:
            return now
        return None if self._probing is not None else max(now, self._next_probe)

    def sending(self, record: Hashable) -> None:
        """`record` is sent: during an outage it is the probe."""
        if self.declared:
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
        decision = self._decide(record, outcome, trials, now)
        # Whatever ends an outage has ended it by now; a stop for another reason tells more.
        if self.outage.over_limit(now) and not isinstance(decision, Stop):
            return Stop(self._expired())
        return decision

    def _decide(self, record: Hashable, outcome: Outcome, trials: Trials, now: float) -> Decision:
        match outcome.verdict:
            case Verdict.ACCEPTED:
                trials.tries += 1
                self._doomed.clear()
                self.outage.alive()
                return Settle(Status.ACCEPTED)
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
            case Verdict.TROUBLE:  # pragma: no branch  there is no other
                self._charge(record, trials, now)
                return self._again(outcome, trials)

    def _expired(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"MoEngage has accepted nothing for {self._retry.outage_limit / 60:g} minutes (--outage-limit); "
            f"nothing was given up: {AGAIN} when the service is back"
        )

    def _refused(self, record: Hashable, outcome: Outcome, trials: Trials) -> Decision:
        trials.tries += 1
        self._doomed.add(record)
        if len(self._doomed) < DOOM_RECORDS:
            return Settle(Status.REJECTED)
        self._doomed.clear()
        return Stop(AccountRefused(_refused(outcome)))

    def _charge(self, record: Hashable, trials: Trials, now: float) -> None:
        """Count the try: free during an outage, but for a record that fails its probes while others get through."""
        declared = self.outage.declared
        probe = self.outage.trouble(record, now)
        if not declared:
            trials.tries += 1
            return
        if not probe:  # it was on its way when the outage was declared
            trials.free += 1
            return
        if trials.probes == 0:
            trials.lives_at_probe = self.outage.lives
        trials.probes += 1
        if trials.probes > PROBES_FREE and self.outage.lives > trials.lives_at_probe:
            trials.tries += 1
        else:
            trials.free += 1

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
    said = f"{outcome.http_status}: {outcome.reason or outcome.error_type or 'no reason given'}"
    if outcome.verdict is Verdict.UNAUTHORIZED:
        return CredentialsRejected(
            f"MoEngage refuses the credentials ({said}): check the workspace id, the Data API key "
            f"(dashboard: Settings > Account > APIs) and the data center. With another key {AGAIN}; with another "
            "workspace or data center add --fresh, for that is another run"
        )
    return DestinationWrong(
        f"this is not the Track Device API ({said}): check --data-center or --base-url and the workspace id. With "
        f"others add --fresh, for that is another run; where they were right, {AGAIN} later"
    )


def _refused(outcome: Outcome) -> str:
    kind = f"{outcome.http_status} {outcome.error_type or ''}".strip()
    return (
        f"{DOOM_RECORDS} different records in a row were refused for a reason outside them "
        f"({kind}: {outcome.reason or 'no reason given'}): "
        "the account may be suspended or blocked, or a proxy or firewall on the way dislikes the requests. "
        f"Settle that, then {AGAIN}"
    )
