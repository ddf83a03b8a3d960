"""The nearest accepted row behind each of some failures that shares a key with it: it has made their letters obsolete.

Lines that cannot matter are told by a few of their bytes, as `Result.line` writes them; for every other line the answer
is: look closer. (A string of JSON has a backslash before each quote in it, so a pattern with a bare `":` in it matches
between strings only, whatever the strings say.)
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson

from moe_bulk.device import ID_KEPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from moe_bulk.outcome import Result

_KEYS = b'keys":['
_OTHER = b'"other_'
_IDS = re.compile(rb'"customer_id":"[^"\\]*","device_id":"[^"\\]*"')

_Accepted: TypeAlias = tuple[float, int]
"""An accepted row: its place in the input, its line."""

_NONE: _Accepted = (math.inf, 0)


class Failure(NamedTuple):
    """A failed row: where it stands in the input, where its letter begins, its hashes in one text, its ids.

    `minus` is its place in the input, negative: the heap has the smallest first, and we drop the last.
    """

    minus: int
    line: int
    letter: int
    hashes: str
    ids: bytes


def ids_in_line(result: Result) -> bytes:
    """How a result line tells these ids."""
    return b'"customer_id":%b,"device_id":%b' % (orjson.dumps(result.customer_id), orjson.dumps(result.device_id))


class Successors:
    """Finds for each of some failures the nearest accepted row behind it that shares a key, in any order of rows.

    A lane holds the failures with one key. An accepted row is noted at the last of them before it; in the end what is
    noted at a failure holds for all before it in the lane, too. So a thousand rows of one key cost no more than others.
    """

    def __init__(self, failures: list[Failure]) -> None:
        self._places = [-failure.minus for failure in failures]
        self._lanes: dict[bytes, list[int]] = {}
        for number, failure in enumerate(failures):
            for at in range(0, len(failure.hashes), 12):
                self._lanes.setdefault(failure.hashes[at : at + 12].encode(), []).append(number)
        self._ids = {failure.ids for failure in failures}
        self._noted: dict[tuple[bytes, int], _Accepted] = {}

    def among(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Those result lines that may be of a row which shares a key with a failure: where it takes a closer look."""
        keys, ids = self._lanes.keys(), self._ids
        for raw in lines:
            before, plain, told = raw.rpartition(_KEYS)
            shares = not plain or b"\\" in told or not keys.isdisjoint(told.split(b'"')[1::2])
            if not shares and before.endswith(_OTHER):
                found = _IDS.search(before)
                # lines of failed rows tell of each id no more than `ID_KEPT` characters
                shares = found is None or len(found[0]) > ID_KEPT or found[0] in ids
            if shares:
                yield raw

    def take(self, place: int, result: Result) -> None:
        """Note an accepted row."""
        before, accepted = bisect_left(self._places, place), (place, result.position.line)
        for key in map(str.encode, result.hashes):
            slot = key, bisect_left(self._lanes.get(key, ()), before) - 1
            if slot[1] >= 0:
                self._noted[slot] = min(self._noted.get(slot, _NONE), accepted)

    def lines(self) -> list[int | None]:
        """The line of the nearest accepted row for each failure, None where there is none."""
        found = [_NONE] * len(self._places)
        for key, lane in self._lanes.items():
            nearest = _NONE
            for at in reversed(range(len(lane))):
                nearest = min(nearest, self._noted.get((key, at), _NONE))
                found[lane[at]] = min(found[lane[at]], nearest)
        return [None if each is _NONE else each[1] for each in found]
