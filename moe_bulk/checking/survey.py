"""Folds the rows of one input into what can be said of them; memory does not grow with them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from moe_bulk.causes import Causes, cause_of, remedy_beforehand
from moe_bulk.checking.collisions import SHARED_KEYS, Collisions
from moe_bulk.checking.findings import Cause, Effort, Skipped
from moe_bulk.checking.hurry import Hurried
from moe_bulk.checking.oddities import Oddities
from moe_bulk.columns import Unsent
from moe_bulk.deadletter import letter
from moe_bulk.outcome import Attempt, Result, Status
from moe_bulk.users import UserLimits
from moe_bulk.wire import encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from moe_bulk.checking.collisions import Shared
    from moe_bulk.config import Rate
    from moe_bulk.record import Record

MOST_DEVICES = 1000
"""MoEngage blocks a user who has more."""

SAMPLED = 1000
"""Rows of each kind whose lines are made, to know how long lines are."""

_SKIPS_KEPT = 100
_ATTEMPT = Attempt(sent=1764000000.123456, at=123456.123456, ms=123.456, http_status=200)


class Survey:
    """Takes in every row of an input, then tells what is known; `close` it in any case."""

    def __init__(self, folder: Path, labels: Sequence[str]) -> None:
        self.counts: Counter[Status] = Counter()
        self.valid = 0
        self.largest_body = 0
        self.oddities = Oddities()
        self.collisions = Collisions(folder)
        self._labels = {label: number for number, label in enumerate(labels)}
        self._causes = Causes(remedy_beforehand)
        self._skips: dict[str, Skipped] = {}
        self._results = _Sizes()
        self._letters = _Sizes()

    @property
    def rows(self) -> int:
        """Rows that were taken in."""
        return self.valid + self.counts.total()

    def add(self, batch: Sequence[Record | Unsent]) -> None:
        """More rows, in the order of the input; together, because a call for each row and question takes its time."""
        records = [made for made in batch if not isinstance(made, Unsent)]
        if len(records) < len(batch):
            for made in batch:
                if isinstance(made, Unsent):
                    self._unsent(made)
        for record in records[: max(0, SAMPLED - self.valid)]:
            self._sample(record)
        self.valid += len(records)
        self.collisions.add(records, self._labels)
        self.oddities.look(records)
        self.largest_body = max(self.largest_body, *(len(encode(record.device)) for record in records), 0)

    def _sample(self, record: Record) -> None:
        device = record.device
        result = Result(
            record.position,
            Status.ACCEPTED,
            record.row,
            device.customer_id,
            device.device_id,
            http_status=200,
            request_id="x" * 32,
            attempts=(_ATTEMPT,),
            tries=1,
            settled_at=_ATTEMPT.sent,
            keys=device.keys(),
        )
        self._results.add(len(result.line()))

    def _unsent(self, made: Unsent) -> None:
        self.counts[made.status] += 1
        result = Result(
            made.row.position,
            made.status,
            made.row,
            made.customer_id,
            made.device_id,
            reason=made.reason,
            mapping=made.mapping,
            keys=made.keys,
        )
        if self.counts[made.status] <= SAMPLED:
            self._results.add(len(result.line()))
        if made.status is Status.INVALID:
            self._causes.add(result)
            if self.counts[Status.INVALID] <= SAMPLED:
                self._letters.add(len(letter(result)))
        elif made.status is Status.SKIPPED:
            self._skip(result)

    def _skip(self, result: Result) -> None:
        cause = cause_of(result)
        if cause not in self._skips and len(self._skips) >= _SKIPS_KEPT:
            cause = "other"
        position = result.position
        skipped = self._skips.setdefault(
            cause, Skipped(cause=cause, count=0, source=position.source, first_line=position.line)
        )
        skipped["count"] += 1

    def close(self) -> None:
        """Let go of the disk."""
        self.collisions.close()

    # -- what is known in the end ------------------------------------------------------------------------------------

    def failures(self) -> list[Cause]:
        """Why rows would fail, the most frequent cause first."""
        found = [
            Cause(
                cause=str(said["cause"]),
                count=int(str(said["count"])),
                source=str(said["source"]),
                first_line=int(str(said["first_line"])),
                example=str(said["example"]),
                remedy=str(said["remedy"]),
            )
            for said in self._causes.state()
        ]
        return sorted(found, key=lambda cause: -cause["count"])

    def skips(self) -> list[Skipped]:
        """Why rows would be left out, the most frequent cause first."""
        return sorted(self._skips.values(), key=lambda skipped: -skipped["count"])

    def effort(self, rate: Rate, busiest: int, beyond: int) -> Effort:
        """What the upload takes; the user with the most rows, `busiest`, may hold it up, and rows `beyond` fail."""
        requests = self.valid - beyond
        per_user = max((busiest - 1) // limit.limit * limit.per for limit in UserLimits().ours) if busiest else 0.0
        return Effort(
            requests=requests,
            rate=str(rate),
            seconds=round(max(requests / rate.per_second, per_user), 1),
            largest_body=self.largest_body,
            results_bytes=self._results.in_all(self.rows),
            dead_letter_bytes=self._letters.in_all(self.counts[Status.INVALID]),
        )

    def shared(self) -> dict[str, Shared]:
        """What several devices share, by the field."""
        return {name: self.collisions.shared(name) for name in SHARED_KEYS}

    def hurried_users(self, rate: Rate) -> Hurried:
        """Users whose rows stand so close that at full pace they would pass MoEngage's limits for one user."""
        hurried = Hurried(rate)
        for user, spot, number in self.collisions.busy_users(hurried.least):
            hurried.add(user, spot, number)
        return hurried


class _Sizes:
    """How long the lines of a sample were."""

    def __init__(self) -> None:
        self._bytes = 0
        self._lines = 0

    def add(self, length: int) -> None:
        self._bytes += length
        self._lines += 1

    def in_all(self, lines: int) -> int:
        """How long so many of them are, about."""
        return round(self._bytes / self._lines * lines) if self._lines else 0
