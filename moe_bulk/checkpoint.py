"""Where a run stands, as `checkpoint.json` tells it: the journal's shortcut, from which the same command goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import orjson

from moe_bulk.deadletter import as_json
from moe_bulk.fingerprint import Fingerprint
from moe_bulk.journal import DEAD_LETTER, RESULTS
from moe_bulk.outcome import FORMAT
from moe_bulk.settled import BEGINNING, ITEM_BITS, OFFSETS, Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ITEM = (1 << ITEM_BITS) - 1
_UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a run came, and of what; all that it speaks of was safe on disk before it was written.

    `place` is where reading goes on, `ranges` what is settled, by source, as ascending ranges of keys [start, end)
    (`settled.key`). `results` and `dead_letters` are the bytes of the two files that belong to it, `tally` is the
    state of a `Tally`. `started_at` is epoch seconds, `at` the boot-clock second of which all this is true, and `boot`
    names the boot. `final_dead_letter` is the length of the dead letter that is about to take the place of the one with
    `dead_letters` bytes.
    """

    settings: dict[str, object]
    sources: tuple[Fingerprint, ...]
    place: Place
    ranges: Mapping[str, Sequence[tuple[int, int]]]
    results: int
    dead_letters: int
    tally: dict[str, object]
    started_at: float
    at: float
    boot: str | None
    sessions: int = 1
    finished: bool = False
    final_dead_letter: int | None = None
    busy: list[list[int]] = field(default_factory=list)
    """The users, by their cells, who were sent much of late (`Users.busy`)."""
    also: dict[str, object] = field(default_factory=dict)
    """Settings that do not matter, which the summary tells of."""

    def emptied(self) -> Checkpoint:
        """The same run with nothing settled: from it, everything is read back from the files' first byte on.

        Its `tally` is empty: the numbers begin anew.
        """
        return replace(
            self,
            place=BEGINNING,
            ranges={},
            results=0,
            dead_letters=0,
            tally={},
            finished=False,
            final_dead_letter=None,
        )

    def as_json(self) -> bytes:
        """What stands in `checkpoint.json`: one line of JSON."""
        said = {
            "format": FORMAT,
            "finished": self.finished,
            "sessions": self.sessions,
            "started_at": self.started_at,
            "at": self.at,
            "boot": self.boot,
            "files": {RESULTS: self.results, DEAD_LETTER: self.dead_letters},
            "final_dead_letter": self.final_dead_letter,
            "next": self.place._asdict(),
            "settings": self.settings,
            "also": self.also,
            "sources": [each.as_json() for each in self.sources],
            "tally": self.tally,
            "busy": self.busy,
            "ranges": {source: list(map(_spelt, ranges)) for source, ranges in self.ranges.items()},
        }
        return as_json(said, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, raw: bytes) -> Checkpoint:
        """The checkpoint that a file holds; ValueError, saying what is wrong with it, for anything that is none."""
        said = _parsed(raw)
        files, place = _object(said, "files"), _object(said, "next")
        return cls(
            settings=_object(said, "settings"),
            sources=tuple(map(Fingerprint.from_json, _list(said, "sources"))),
            place=Place(_count(place, "source"), _count(place, "line", least=1), _offset(place)),
            ranges={source: _ranges(source, ranges) for source, ranges in _object(said, "ranges").items()},
            results=_count(files, RESULTS),
            dead_letters=_count(files, DEAD_LETTER),
            tally=_object(said, "tally"),
            started_at=_number(said, "started_at"),
            at=_number(said, "at"),
            boot=_text_or_none(said, "boot"),
            sessions=_count(said, "sessions", least=1),
            finished=_bool(said, "finished"),
            final_dead_letter=None if _value(said, "final_dead_letter") is None else _count(said, "final_dead_letter"),
            busy=_busy(said),
            also=_object(said, "also") if "also" in said else {},
        )


def _spelt(keys: tuple[int, int]) -> tuple[int, int, int, int]:
    start, end = keys
    return start >> ITEM_BITS, start & _ITEM, end >> ITEM_BITS, end & _ITEM


def _parsed(raw: bytes) -> dict[str, object]:
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError("it is torn, or no JSON") from error
    if type(said) is not dict:
        raise ValueError("it is no JSON object")
    if type(said.get("format")) is not int or said["format"] != FORMAT:
        raise ValueError(f"its format is {said.get('format')!r}, this version knows {FORMAT}")
    return said


def _value(said: Mapping[str, object], name: str) -> object:
    value = said.get(name, _UNKNOWN)
    if value is _UNKNOWN:
        raise ValueError(f"{name!r} is missing")
    return value


def _object(said: Mapping[str, object], name: str) -> dict[str, object]:
    value = _value(said, name)
    if type(value) is not dict:
        raise ValueError(f"{name!r} is no object")
    return value


def _list(said: Mapping[str, object], name: str) -> list[object]:
    value = _value(said, name)
    if type(value) is not list:
        raise ValueError(f"{name!r} is no list")
    return value


def _count(said: Mapping[str, object], name: str, *, least: int = 0, most: float = math.inf) -> int:
    value = _value(said, name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name!r} is no number that can stand there")
    return value


def _offset(said: Mapping[str, object]) -> int:
    return _count(said, "offset", most=OFFSETS - 1)


def _number(said: Mapping[str, object], name: str) -> float:
    value = _value(said, name)
    if type(value) is not float and type(value) is not int:
        raise ValueError(f"{name!r} is no time")
    return float(value)


def _text_or_none(said: Mapping[str, object], name: str) -> str | None:
    value = _value(said, name)
    if value is not None and type(value) is not str:
        raise ValueError(f"{name!r} is no text")
    return value


def _bool(said: Mapping[str, object], name: str) -> bool:
    value = _value(said, name)
    if type(value) is not bool:
        raise ValueError(f"{name!r} is neither true nor false")
    return value


def _busy(said: Mapping[str, object]) -> list[list[int]]:
    busy = _list(said, "busy")
    if not all(type(row) is list and row and all(type(each) is int and each >= 0 for each in row) for row in busy):
        raise ValueError("'busy' is no list of counts")
    return cast("list[list[int]]", busy)


def _ranges(source: str, said: object) -> list[tuple[int, int]]:
    if type(said) is not list:
        raise ValueError(f"the ranges of {source!r} are no list")
    ranges = [_packed(source, each) for each in said]
    ordered = all(start < end for start, end in ranges) and all(a[1] <= b[0] for a, b in pairwise(ranges))
    if not ordered:
        raise ValueError(f"the ranges of {source!r} are out of order")
    return ranges


def _packed(source: str, said: object) -> tuple[int, int]:
    if type(said) is not list or len(said) != 4 or any(type(number) is not int for number in said):
        raise ValueError(f"the ranges of {source!r} are not made of four numbers each")
    start, item, end, end_item = cast("list[int]", said)
    if not (0 <= start < OFFSETS and 0 <= end <= OFFSETS and 0 <= item <= _ITEM and 0 <= end_item <= _ITEM):
        raise ValueError(f"the ranges of {source!r} lie where no row can")
    return start << ITEM_BITS | item, end << ITEM_BITS | end_item
