"""What one attempt came to, and the last word on one row."""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from dataclasses import dataclass
from enum import Enum, StrEnum
from hashlib import blake2b
from math import floor
from typing import TYPE_CHECKING, NamedTuple, Self

import orjson

from moe_bulk.record import Position, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class Attempt(NamedTuple):
    """One request of a row: when, how long, and what came back.

    `sent` is epoch seconds (the wall clock at process start plus boot-clock time since), `at` boot-clock seconds, `ms`
    the milliseconds until the answer or until giving up. Exactly one of `http_status` and `error` is set.

    A named tuple, as `Result` is: they are made for every row, at less than half of what frozen classes cost.
    """

    sent: float
    at: float
    ms: float
    http_status: int | None = None
    error: str | None = None

    def as_json(self) -> dict[str, object]:
        """The form that stands in a result line."""
        sent, at, ms, http_status, error = self
        # as `rounded`, whose calls would cost as much as all else here
        said: dict[str, object] = {
            "sent": floor(sent * 1e6 + 0.5) / 1e6,
            "at": floor(at * 1e6 + 0.5) / 1e6,
            "ms": floor(ms * 1e3 + 0.5) / 1e3,
        }
        if http_status is not None:
            said["http_status"] = http_status
        if error is not None:
            said["error"] = error
        return said

    @classmethod
    def from_json(cls, said: object) -> Self:
        """The attempt that stands in a result line; ValueError for what is none."""
        found = _object(said)
        return cls(
            _number(found, "sent"),
            _number(found, "at"),
            _number(found, "ms"),
            _count_or_none(found, "http_status"),
            _text_or_none(found, "error"),
        )


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

DELIVERED = frozenset({Status.ACCEPTED, Status.UNCHANGED})
"""The statuses of rows that MoEngage has: they make an earlier failed one obsolete.

Their lines have the ids whole, and leave out the key that follows from these: to hash it would cost a sixth of a line.
"""

KEYED = FAILED | DELIVERED
"""The statuses whose lines tell the row's keys, by hashes or by the ids."""


_dumps, _WITH_LINE_FEED = orjson.dumps, orjson.OPT_APPEND_NEWLINE
_new_hash = blake2b(digest_size=9).copy
"""To copy one takes less time than to make one."""


def rounded(number: float, parts: float = 1e6) -> float:
    """A number in whole millionths, or other parts of 1: in a sixth of the time that `round` takes."""
    return floor(number * parts + 0.5) / parts


def hashed(keys: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Keys as result lines tell them: 12 characters each, Base64 of nine bytes of BLAKE2b over its parts as JSON."""
    found = []
    for key in keys:  # in one place, for it is done for every row
        try:
            as_json = _dumps(key)
        except TypeError:  # halves of characters, which only the standard library writes: escaped
            as_json = json.dumps(key).encode()
        digest = _new_hash()
        digest.update(as_json)
        found.append(b2a_base64(digest.digest(), newline=False).decode())
    return tuple(found)


class Result(NamedTuple):
    """The last word on one row, and how it came to it.

    `attempts` holds the last `ATTEMPTS_KEPT`, `tries` says how many there were. `settled_at` is epoch seconds. `row` is
    the row as it was read, `mapping` how it was read: a dead letter needs both. `keys` and
    `other_hashes` are what the row must not overtake another one in (`Device.keys`): keys that are known whole, and
    hashes of the others. A row that was sent has the device's own key whole; one that was read from its line, that or
    none.
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
    keys: tuple[tuple[str, ...], ...] = ()
    other_hashes: tuple[str, ...] = ()

    @property
    def hashes(self) -> tuple[str, ...]:
        """Those of all its keys: its line tells them, but for the one that follows from its ids."""
        return hashed(self.keys) + self.other_hashes

    @property
    def failed(self) -> bool:
        """True where the row needs somebody's attention: it has a dead letter."""
        return self.status in FAILED

    def line(self) -> bytes:
        """The result's line in `results.ndjson`, with its line feed."""
        # taken apart at once: asking for each by its name costs as much again
        (
            place,
            status,
            _,
            customer,
            device,
            http_status,
            error_type,
            reason,
            request,
            attempts,
            tries,
            at,
            _,
            keys,
            hashes,
        ) = self
        source, line, offset, item = place
        tried = []
        for attempt in attempts:  # up to CPython 3.11, a comprehension or `map` costs more for the one that there is
            tried.append(attempt.as_json())  # noqa: PERF401
        said: dict[str, object] = {
            "format": FORMAT,
            "source": source,
            "line": line,
            "offset": offset,
            "item": item,
            "customer_id": customer,
            "device_id": device,
            "status": status,
            "http_status": http_status,
            "error_type": error_type,
            "reason": reason,
            "request_id": request,
            "attempts": tried,
            "tries": tries,
            "settled_at": floor(at * 1e6 + 0.5) / 1e6,  # as in `as_json`
        }
        if status in DELIVERED and keys and keys[0] == ("device", customer, device):
            said["other_keys"] = hashed(keys[1:]) + hashes if len(keys) > 1 else hashes
        elif status in KEYED:
            said["keys"] = hashed(keys) + hashes
        return _dumps(said, None, _WITH_LINE_FEED)  # by their places, which is faster than by name

    @classmethod
    def from_line(cls, raw: bytes, *, unreadable: bool = False) -> Self:
        """The result that a line of `results.ndjson` tells of; ValueError for anything that is no such line.

        Its row has no fields, because the line does not tell them: an empty row, or with `unreadable` one that could
        not be read.
        """
        said = _object(orjson.loads(raw))
        keys, hashes = _keys(said)
        if type(said.get("format")) is not int or said["format"] != FORMAT:
            raise ValueError(f"format is {said.get('format')!r}, not {FORMAT}")
        position = Position(*_place(said))
        return cls(
            position,
            Status(_text(said, "status")),
            Row(position, None if unreadable else {}),
            customer_id=_text_or_none(said, "customer_id"),
            device_id=_text_or_none(said, "device_id"),
            http_status=_count_or_none(said, "http_status"),
            error_type=_text_or_none(said, "error_type"),
            reason=_text_or_none(said, "reason"),
            request_id=_text_or_none(said, "request_id"),
            attempts=tuple(map(Attempt.from_json, _list(said, "attempts"))),
            tries=_count(said, "tries"),
            settled_at=_number(said, "settled_at"),
            keys=keys,
            other_hashes=hashes,
        )


_HASH = re.compile(r"[A-Za-z0-9+/]{12}")


def _object(value: object) -> dict[str, object]:
    if type(value) is not dict:
        raise ValueError("it is no JSON object")
    return value


def _place(said: dict[str, object]) -> tuple[str, int, int, int]:
    return _text(said, "source"), _count(said, "line"), _count(said, "offset"), _count(said, "item")


def _text(said: dict[str, object], name: str) -> str:
    value = said.get(name)
    if type(value) is not str:
        raise ValueError(f"{name} is no text")
    return value


def _text_or_none(said: dict[str, object], name: str) -> str | None:
    return None if said.get(name) is None else _text(said, name)


def _count(said: dict[str, object], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is no whole number from 0")
    return value


def _count_or_none(said: dict[str, object], name: str) -> int | None:
    return None if said.get(name) is None else _count(said, name)


def _number(said: dict[str, object], name: str) -> float:
    value = said.get(name)
    if type(value) is not float and type(value) is not int:
        raise ValueError(f"{name} is no number")
    return value


def _list(said: dict[str, object], name: str) -> list[object]:
    value = said.get(name)
    if type(value) is not list:
        raise ValueError(f"{name} is no list")
    return value


def _keys(said: dict[str, object]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The keys that a line tells by the row's ids, and the hashes of others; those of skipped rows tell none."""
    if "other_keys" in said:
        return (("device", _text(said, "customer_id"), _text(said, "device_id")),), _hashes(said, "other_keys")
    return (), _hashes(said, "keys") if "keys" in said else ()


def _hashes(said: dict[str, object], name: str) -> tuple[str, ...]:
    found = _list(said, name)
    if not all(type(each) is str and _HASH.fullmatch(each) for each in found):
        raise ValueError(f"{name} are no hashes")
    return tuple(map(str, found))


def hashes_told(said: dict[str, object]) -> tuple[str, ...]:
    """`Result.hashes` of a line that was taken apart already; ValueError where it tells no such thing."""
    keys, hashes = _keys(said)
    return hashed(keys) + hashes
