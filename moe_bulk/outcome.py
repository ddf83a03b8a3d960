"""What one attempt came to, and the last word on one row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from moe_bulk.record import Position, Row

ATTEMPTS_KEPT = 20
"""Attempts that a result line tells in full: the last ones."""

FORMAT = 1
"""Version of the line form, in every line: readers refuse what they do not know."""


class Verdict(Enum):
    """What an answer, or its absence, means for the record and for the run."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """This record is wrong; another may be right."""
    THROTTLED = "throttled"
    """429: later, and free of charge."""
    TROUBLE = "trouble"
    """No answer, a broken one, or one that tells of passing trouble: try again."""
    DOOMED = "doomed"
    """Refused for a reason outside the record, or by somebody on the way: three of these in a row stop the run."""
    UNAUTHORIZED = "unauthorized"
    """401: stop at once."""
    MISDIRECTED = "misdirected"
    """A redirect, 404 or 405: stop at once."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to.

    `error` names the trouble where there was no usable answer (`timeout`, `connection refused` …). `retry_after` and
    `reset_after` are seconds from now, `remaining` is the request allowance that the service says is left.
    """

    verdict: Verdict
    http_status: int | None = None
    error_type: str | None = None
    reason: str | None = None
    request_id: str | None = None
    error: str | None = None
    retry_after: float | None = None
    remaining: int | None = None
    reset_after: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of a row: when, how long, and what came back.

    `sent` is epoch seconds (the wall clock at process start plus boot-clock time since), `at` boot-clock seconds, `ms`
    the milliseconds until the answer or until giving up. Exactly one of `http_status` and `error` is set.
    """

    sent: float
    at: float
    ms: float
    http_status: int | None = None
    error: str | None = None

    def as_json(self) -> dict[str, object]:
        """The form that stands in a result line."""
        said: dict[str, object] = {"sent": round(self.sent, 6), "at": round(self.at, 6), "ms": round(self.ms, 3)}
        if self.http_status is not None:
            said["http_status"] = self.http_status
        if self.error is not None:
            said["error"] = self.error
        return said


class Status(StrEnum):
    """The last word on a row."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """The API refused this record."""
    INVALID = "invalid"
    """Never sent: the row is no valid device."""
    EXHAUSTED = "exhausted"
    """All its tries were used up."""
    SUPERSEDED = "superseded"
    """A dead letter that a later accepted row has made obsolete."""
    UNCHANGED = "unchanged"
    """MoEngage already has exactly this."""
    SKIPPED = "skipped"
    """Left out by a filter or a preset."""


FAILED = frozenset({Status.REJECTED, Status.INVALID, Status.EXHAUSTED})
"""The statuses that make a dead letter."""


@dataclass(frozen=True, slots=True)
class Result:
    """The last word on one row, and how it came to it.

    `attempts` holds the last `ATTEMPTS_KEPT`, `tries` says how many there were. `settled_at` is epoch seconds. `row` is
    the row as it was read, `mapping` how it was read: a dead letter needs both.
    """

    position: Position
    status: Status
    row: Row
    customer_id: str | None = None
    device_id: str | None = None
    http_status: int | None = None
    error_type: str | None = None
    reason: str | None = None
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    tries: int = 0
    settled_at: float = 0.0
    mapping: dict[str, object] | None = None

    @property
    def failed(self) -> bool:
        """True where the row needs somebody's attention: it has a dead letter."""
        return self.status in FAILED

    def line(self) -> bytes:
        """The result's line in `results.ndjson`, with its line feed."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "source": self.position.source,
                "line": self.position.line,
                "offset": self.position.offset,
                "item": self.position.item,
                "customer_id": self.customer_id,
                "device_id": self.device_id,
                "status": self.status.value,
                "http_status": self.http_status,
                "error_type": self.error_type,
                "reason": self.reason,
                "request_id": self.request_id,
                "attempts": [attempt.as_json() for attempt in self.attempts],
                "tries": self.tries,
                "settled_at": round(self.settled_at, 6),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
