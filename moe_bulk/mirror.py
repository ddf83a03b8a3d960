"""A copy in memory of what a state file says of devices: looked up in a tenth of the time that SQLite takes.

It is filled a portion at a time, in proportion to what is asked, so that nobody waits for it and a small upload does
not pay for a large file. It answers only once it is whole, only for what nobody has written since, and it may always
know less than the file: what it does not answer is looked up there.
"""

from __future__ import annotations

import operator
import sqlite3
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

FILLED_FOR_EACH = 20
"""Devices that are copied for each that is asked about: for one twentieth of the file, that is all of it."""

MOST_MIRRORED = 10_000_000
"""Devices for which there is memory: 20 bytes each."""

_DISTURBED_OFTEN = 3
"""Where another process wrote so many times, it will again, and copying does not pay."""

_IN_A_BUCKET = 6
"""Bits of the devices in each of the parts of all ids that are searched: a few cache lines."""

_LAST_EPOCH = (1 << 32) - 1
_COPY = """
    SELECT json_group_array(id), json_group_array(said), json_group_array(at)
    FROM (SELECT id, said, at FROM devices WHERE id > ? ORDER BY id LIMIT ?)"""
"""A column of many rows at once: a row for each device would take twice the time."""


class Mirror:
    """What `devices` in `db` holds, for the connection that writes it and for one thread at a time.

    Call `refresh` right before `find`, which is true of the moment between them, and `forget` for each device that this
    connection changes.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._disturbed = 0
        self._in_use = True
        self._version: int | None = None
        self._ids, self._said, self._at = array("q"), array("q"), array("I")
        self._starts = array("I")
        """Where the ids begin whose first bits are the same, one more at the end; empty until the copy is whole."""
        self._shift = 0

    def refresh(self, asked: int) -> None:
        """Leave out what others may have changed, and copy some more, since so many are asked about."""
        if not self._in_use:
            return
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._disturbed += bool(self._ids)
            self._in_use = self._disturbed < _DISTURBED_OFTEN
            self._clear()
            self._version = version
        if self._in_use and not self._starts:
            self._fill(FILLED_FOR_EACH * asked)

    def find(self, ids: Iterable[int], since: float, until: float) -> dict[int, int]:
        """What was accepted between two times for these devices, as far as this knows: not all that the file does."""
        found: dict[int, int] = {}
        if not (starts := self._starts):
            return found
        known, said, at, shift, since = self._ids, self._said, self._at, self._shift, max(since, 1)
        middle = len(starts) // 2
        for one in ids:
            bucket = (one >> shift) + middle
            place = bisect_left(known, one, starts[bucket], end := starts[bucket + 1])
            if place < end and known[place] == one and since <= at[place] <= until:
                found[one] = said[place]
        return found

    def forget(self, ids: Iterable[int]) -> None:
        """Know nothing of these devices from now on."""
        for one in ids:
            place = bisect_left(self._ids, one)
            if place < len(self._ids) and self._ids[place] == one:
                self._at[place] = 0

    def _clear(self) -> None:
        for column in (self._ids, self._said, self._at, self._starts):
            del column[:]

    def _fill(self, count: int) -> None:
        copied = 0
        try:
            copied = self._copy(count)
        except (TypeError, ValueError, OverflowError, sqlite3.OperationalError):
            self._in_use = False  # no numbers, which is nothing that this program wrote; or an SQLite without JSON
        if not self._in_use or len(self._ids) > MOST_MIRRORED:
            self._in_use = False
            self._clear()
        elif copied < count:
            bits = max(1, len(self._ids).bit_length() - _IN_A_BUCKET)
            middle, self._shift = 1 << (bits - 1), 64 - bits
            bounds = (bucket << self._shift for bucket in range(-middle, middle))
            self._starts = array("I", (bisect_left(self._ids, bound) for bound in bounds))
            self._starts.append(len(self._ids))

    def _copy(self, count: int) -> int:
        """Copy so many more where there are as many; how many it were."""
        last = self._ids[-1] if self._ids else -(2**63)
        ids, said, at = map(orjson.loads, self._db.execute(_COPY, (last, count)).fetchone())
        if not all(map(operator.lt, [last, *ids], ids)):
            raise ValueError("out of order, since SQLite promises none within an aggregate")
        self._ids.extend(ids)
        self._said.extend(said)
        in_range = not at or (min(at) >= 0 and max(at) <= _LAST_EPOCH)
        self._at.extend(at if in_range else [each if 0 <= each <= _LAST_EPOCH else 0 for each in at])
        return len(ids)
