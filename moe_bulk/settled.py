"""What of the input has its result already, and where reading goes on after a stop."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from moe_bulk.record import Position

ITEM_BITS = 16
OFFSETS = 1 << 47
"""Offsets end here, so that an offset and an item, packed, fit into 64 bits."""

_source = attrgetter("source")
_AT_ONCE = 500_000
"""Rows that are sorted at once: sorting takes some 40 bytes a row, keeping them takes 16."""


class Place(NamedTuple):
    """Where reading goes on: a source by its index, and a row of it."""

    source: int
    line: int
    offset: int


BEGINNING = Place(0, 1, 0)


def key(position: Position) -> int:
    """The row within its source as one number: rows of a source ascend by it. ValueError where it cannot be a row's."""
    if not (0 <= position.offset < OFFSETS and 0 <= position.item < 1 << ITEM_BITS):
        raise ValueError(f"no row can stand at offset {position.offset}, item {position.item}")
    return position.offset << ITEM_BITS | position.item


def label_on_disk(source: str) -> str:
    r"""What the run folder's files call a source: JSON knows no lone surrogates, they are spelt out (`\udc80`)."""
    return source.encode("utf-8", "backslashreplace").decode()


class _Spans:
    """Rows of one source, as ranges of keys [start, end) that ascend and do not touch; it never changes."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.starts = array("Q")
        self.ends = array("Q")
        for start, end in ranges:
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.ends, strict=True)

    def __contains__(self, row: int) -> bool:
        found = bisect_right(self.starts, row) - 1
        return found >= 0 and row < self.ends[found]

    def beyond(self, row: int) -> int:
        """The index of the first range that reaches beyond `row`."""
        return bisect_right(self.ends, row)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was settled at one moment; it stays as it was while the run goes on.

    `place` is where a later session begins to read: at the first row that was under way, else at the last row that was
    read, else where this session began.
    """

    place: Place
    _sources: Sequence[str]
    _under_way: list[Position]
    _last: dict[str, Position]
    _earlier: Mapping[str, _Spans]

    @property
    def size(self) -> int:
        """How many ranges there are at most; after a rebuilding as many as settled rows, until reading passed them."""
        left = (len(spans) - self._passed(source, spans) for source, spans in self._earlier.items())
        return len(self._under_way) + len(self._last) + sum(left)

    def ranges(self) -> dict[str, list[tuple[int, int]]]:
        """The settled rows of each source that has any, as ascending ranges of keys [start, end); to run in a thread.

        Sources go by their `label_on_disk`.
        """
        holes: dict[str, list[int]] = {source: [] for source in self._last}
        for position in self._under_way:
            holes[position.source].append(key(position))
        found = {source: self._of(source, holes.get(source, [])) for source in self._sources}
        return {label_on_disk(source): list(spans) for source, spans in found.items() if spans}

    def _of(self, source: str, holes: list[int]) -> _Spans:
        spans = self._earlier.get(source, _Spans())
        if source not in self._last:
            return spans
        end = key(self._last[source]) + 1
        kept = self._passed(source, spans)
        beyond = ((max(start, end), stop) for start, stop in zip(spans.starts[kept:], spans.ends[kept:], strict=True))
        return _Spans(chain(_between(holes, end), beyond))

    def _passed(self, source: str, spans: _Spans) -> int:
        return spans.beyond(key(self._last[source]) + 1) if source in self._last else 0


def _between(holes: list[int], end: int) -> Iterator[tuple[int, int]]:
    start = 0
    for hole in holes:
        if start < hole:
            yield start, hole
        start = hole + 1
    if start < end:
        yield start, end


def _apart(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges; ValueError where two of them have a row in common."""
    last = 0
    for start, end in ranges:
        if start < last:
            raise ValueError(f"the row at offset {start >> ITEM_BITS} has two results")
        last = end
        yield start, end


class Settled:
    """What of the input has its result: everything taken in, but for the rows that are still under way.

    `sources` are the names that positions call the sources by, in the order of reading; `earlier` and `place` come from
    the checkpoint of an earlier session. Rows are read from `begin` on; each goes to `take_in`, or to `skip` where it
    is `in` here, in the order of reading.

    >>> from moe_bulk.record import Position
    >>> settled = Settled(["devices.csv"])
    >>> settled.take_in(Position("devices.csv", 2, 40))
    >>> settled.take_in(Position("devices.csv", 3, 75))
    >>> settled.settle(Position("devices.csv", 3, 75))
    >>> settled.snapshot().place
    Place(source=0, line=2, offset=40)
    """

    def __init__(
        self,
        sources: Sequence[str],
        earlier: Mapping[str, Sequence[tuple[int, int]]] | None = None,
        place: Place | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._labels = {label_on_disk(source): source for source in self._sources}
        if len(self._labels) < len(self._sources):
            raise ConfigError("two sources have the same name in the run folder's files: rename one of them")
        if unknown := sorted(set(earlier or ()) - set(self._labels)):
            raise ValueError(f"{unknown[0]!r} is none of the sources")
        self._begin = place or BEGINNING
        if self._begin.source >= max(len(self._sources), 1):
            raise ValueError(f"there is no source {self._begin.source}")
        self._earlier = {self._labels[label]: _Spans(ranges) for label, ranges in (earlier or {}).items()}
        self._under_way: dict[Position, None] = {}
        self._last: dict[str, Position] = {}
        self._latest: Position | None = None

    @property
    def begin(self) -> Place:
        """Where reading begins in this session: no unsettled row stands before it."""
        return self._begin

    def add_earlier(self, positions: Iterable[Position]) -> None:
        """Count in rows that an earlier session settled after its checkpoint, in any order, before any is taken in.

        To be called once, for it goes through all that is there. Positions call their source by its name or its
        `label_on_disk`; ValueError where it is none of the sources.
        """
        runs: dict[str, list[array[int]]] = {}
        new: dict[str, array[int]] = {}
        for position in positions:
            source = self._source(position)
            keys = new.setdefault(source, array("Q"))
            keys.append(key(position))
            if len(keys) >= _AT_ONCE:
                runs.setdefault(source, []).append(array("Q", sorted(keys)))
                del new[source]
        for source, keys in new.items():
            runs.setdefault(source, []).append(array("Q", sorted(keys)))
        for source, found in runs.items():
            rows = ((row, row + 1) for row in heapq.merge(*found))
            self._earlier[source] = _Spans(_apart(heapq.merge(self._earlier.get(source, ()), rows)))

    def _source(self, position: Position) -> str:
        source = self._labels.get(label_on_disk(position.source))
        if source is None:
            raise ValueError(f"{position.source!r} is none of the sources")
        return source

    def __contains__(self, position: Position) -> bool:
        """True where an earlier session settled the row; it may be asked in another thread than the other calls."""
        spans = self._earlier.get(position.source)
        return spans is not None and position.offset << ITEM_BITS | position.item in spans

    def take_in(self, *positions: Position) -> None:
        """Rows go their way, in input order; at least one."""
        self._under_way |= dict.fromkeys(positions)
        self._came_to(positions)

    def settle(self, *positions: Position) -> None:
        """The results of rows that were under way are written; KeyError at the first that was not."""
        under_way = self._under_way
        for position in positions:
            del under_way[position]

    def skip(self, *positions: Position) -> None:
        """Reading came past rows that an earlier session settled, at least one, in input order with those taken in.

        The last one of several in a row is enough. It keeps checkpoints small: what is behind is told as one range.
        """
        self._came_to(positions)

    def _came_to(self, positions: Sequence[Position]) -> None:
        self._last.update(zip(map(_source, positions), positions, strict=True))  # of each source, the last one stays
        self._latest = positions[-1]

    def snapshot(self) -> Snapshot:
        """What is settled at this moment."""
        first = next(iter(self._under_way), self._latest)
        place = self._begin
        if first is not None:
            place = Place(self._sources.index(first.source), first.line, first.offset)
        return Snapshot(place, self._sources, list(self._under_way), self._last.copy(), self._earlier.copy())
