"""Folds the rows of one input into what can be said of them; memory does not grow with them."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from moe_bulk.causes import Causes, cause_of, remedy_beforehand
from moe_bulk.checking.collisions import SHARED_KEYS, Collisions
from moe_bulk.checking.findings import Cause, Effort, Skipped
from moe_bulk.checking.hurry import Hurried
from moe_bulk.checking.oddities import Oddities
from moe_bulk.columns import Portion, Unsent
from moe_bulk.deadletter import letter
from moe_bulk.device import Device
from moe_bulk.outcome import Attempt, Result, Status
from moe_bulk.record import Row
from moe_bulk.users import UserLimits
from moe_bulk.wire import encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from moe_bulk.checking.collisions import Shared
    from moe_bulk.config import Rate
    from moe_bulk.record import Position, Record

MOST_DEVICES = 1000
"""MoEngage blocks a user who has more."""

SAMPLED = 1000
"""Rows of each kind whose lines are made, to know how long lines are."""

_SKIPS_KEPT = 100
_ESCAPED = bytes((*range(32), *b'"\\'))
"""What JSON writes with a backslash, of ASCII."""
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

    def add(self, batch: Portion | Sequence[Record | Unsent]) -> None:
        """More rows, in the order of the input; together, because a call for each row and question takes its time."""
        if not isinstance(batch, Portion):
            for made in batch:
                if isinstance(made, Unsent):
                    self._unsent(made)
            batch = Portion.of([made for made in batch if not isinstance(made, Unsent)])
        for position, device in zip(batch.positions, batch.devices(max(0, SAMPLED - self.valid)), strict=False):
            self._sample(position, device)
        self.valid += len(batch)
        self.collisions.add(batch, self._labels)
        self.oddities.look(batch)
        self.largest_body = largest_body(batch, self.largest_body)

    def _sample(self, position: Position, device: Device) -> None:
        result = Result(
            position,
            Status.ACCEPTED,
            Row(position, {}),
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


def largest_body(portion: Portion, least: int = 0) -> int:
    """Bytes of the largest body of some devices, or `least`; few bodies are made for it where many are alike."""
    own = (portion.customer_ids, portion.device_ids, portion.push_ids, portion.gaids, portion.idfvs)
    alike = list(zip(map(id, portion.rest), map(bool, portion.gaids), map(bool, portion.idfvs), strict=True))
    kinds = dict(zip(alike, portion.rest, strict=True))
    if len(kinds) > len(portion) / 4 or not _stands_as_it_is("".join(chain.from_iterable(own))):
        return max(least, *(len(encode(device)) for device in portion.devices()), 0)
    around = {kind: _length_around(rest, *kind[1:]) for kind, rest in kinds.items()}
    if max(around.values(), default=0) + sum(max(map(len, column), default=0) for column in own) <= least:
        return least  # as nearly always: even the longest of everything is no longer
    lengths = zip((around[kind] for kind in alike), *(map(len, column) for column in own), strict=True)
    return max(least, *map(sum, lengths), 0)


def _length_around(rest: dict[str, str], gaid: bool, idfv: bool) -> int:  # noqa: FBT001  what there is
    """Bytes of a body but for what each device has of its own."""
    attributes = rest | {"push_id": ""} | ({"moe_gaid": ""} if gaid else {}) | ({"idfv": ""} if idfv else {})
    return len(encode(Device("", "", attributes)))


def _stands_as_it_is(text: str) -> bool:
    """True where each character is one byte of JSON."""
    return text.isascii() and len(text.encode().translate(None, _ESCAPED)) == len(text)


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
