"""What each user was sent of late: MoEngage blocks a user who gets too much, without any sign at the API.

Plain arithmetic that is told the time. Users share a fixed number of cells by a hash of their id, and a cell counts in
buckets of time, so memory does not grow with the users. Both err on one side: a user who shares a cell, or whose
requests share a bucket with later ones, is thought to have got more than it did, never less.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Generic, TypeVar
from zlib import crc32

from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CELLS = 2**14
BUCKETS = 30
"""Buckets a window: a request counts for up to a thirtieth of the window too long."""
HIGHEST_COUNT = 65_535
"""What two bytes hold; the counters of all cells take 5 MB, and 16 MB where a request may take ten minutes."""
REMEMBERED = 0.05
"""The share of what a cell may hold from which on a run's next session is told of it."""
CLOSELY = 0.04
"""The share of the least limit beyond which a cell is counted closely: less than a session's first `REMEMBERED`, and
more than the cells get by the plain counter when many users share the usual limit evenly."""
ROUNDING = 0.001
"""Seconds; whoever looks again does so when the bucket has moved on by any rounding."""


@dataclass(frozen=True, slots=True)
class UserLimits:
    """At most `percent` of each of `rates` goes to one user, in any window.

    A user who gets more than that many requests is blocked for an hour or more, says MoEngage
    (https://github.com/moengage/moengage-documentation); the rest is left to the user's own apps.
    """

    rates: tuple[Rate, ...] = (Rate(5_000, 60.0), Rate(10_000, 300.0), Rate(50_000, 3600.0))
    percent: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 100 or any(rate.limit > HIGHEST_COUNT for rate in self.rates):
            raise ConfigError(f"a user gets 1 to 100% of limits up to {HIGHEST_COUNT:,} requests each; got {self!r}")

    @property
    def ours(self) -> tuple[Rate, ...]:
        """What we keep to."""
        return tuple(Rate(rate.limit * self.percent // 100 or 1, rate.per) for rate in self.rates)


class Users:
    """Counts the requests of each user's cell, as the window guard does: from sending until one window after the end.

    Nearly all users get little. Their cells have one plain counter, which forgets what is older than two of the longest
    windows at the latest: never less than any window holds. Those that get more are counted closely, in every window,
    beginning with as many as the plain counter has.

    A request's end is its answer, or, where it was given up, the moment at which it can no longer arrive. All times are
    seconds of one clock that never goes backwards; `timeout` is how long a request may take at most.
    """

    def __init__(
        self, timeout: float, limits: UserLimits | None = None, cells: int = CELLS, closely: float = CLOSELY
    ) -> None:
        self._timeout = timeout
        self._cells = cells
        self._open = array("I", bytes(4 * cells))
        """Of each cell, the requests on their way."""
        self._windows = [_Window(rate, timeout + GRACE, cells) for rate in (limits or UserLimits()).ours]
        self._longest = max(self._windows, key=lambda window: window.length)
        self._least = min(window.limit for window in self._windows)
        self._few = int(self._least * closely)
        """What the plain counter of a cell that is not counted closely may have."""
        self._closely = bytearray(cells)
        """1 for each cell that is counted in every window, as it will be from then on."""
        self._lately = array("I", bytes(4 * cells))
        """Of each cell, the requests that were answered since the last turn, of which there is one a longest window.

        Those of cells that are counted closely stay as they were.
        """
        self._before = array("I", bytes(4 * cells))
        """Those of the longest window before that turn."""
        self._next_turn = -math.inf

    def cell(self, customer_id: str) -> int:
        """Where a user is counted; the same in every process, for what one session tells the next."""
        return crc32(customer_id.encode("utf-8", "surrogatepass")) % self._cells

    def has_room(self, cell: int, now: float) -> bool:
        """True when one more request may be sent this very moment."""
        on_their_way = self._open[cell]
        if not self._closely[cell]:
            if self._few + on_their_way < self._least:
                return True  # at next to no cost for nearly all
            self._watch_closely(cell, now)
        elif self._longest.sums[cell] + on_their_way < self._least:
            return True
        return all(window.over(cell, now) + on_their_way < window.limit for window in self._windows)

    def look_again_at(self, cell: int, now: float) -> float:
        """Before when a full cell cannot have room again."""
        on_their_way = self._open[cell]
        self._watch_closely(cell, now)
        full = [window for window in self._windows if window.over(cell, now) + on_their_way >= window.limit]
        return max((window.moves_on_at(cell) for window in full), default=now)

    def sent(self, cell: int) -> None:
        """A request leaves."""
        self._open[cell] += 1

    def answered(self, cells: Iterable[int], now: float) -> None:
        """Answers came, to one request of each of these cells: the server received them before `now`."""
        if now >= self._next_turn:
            self._turn(now)
        on_their_way, closely, lately, before, few = self._open, self._closely, self._lately, self._before, self._few
        for cell in cells:
            on_their_way[cell] -= 1
            if closely[cell]:
                self._count_closely(cell, now, now)
            else:
                lately[cell] = count = lately[cell] + 1
                if count + before[cell] > few:
                    self._watch_closely(cell, now)

    def given_up(self, cell: int, taken: float, now: float) -> None:
        """No answer came to what was sent at `taken`, and its connection was aborted: it may still arrive."""
        self._open[cell] -= 1
        self._watch_closely(cell, now)  # the plain counter knows of no later moment than now
        self._count_closely(cell, max(taken + self._timeout, now) + GRACE, now)

    def busy(self, now: float, sessions: int = 1) -> list[list[int]]:
        """Of cells that hold a good part of what they may: the cell and, for each window, how many count now.

        It is what the next session of a run needs, which is not told of the others. Each of a run's `sessions` leaves
        out half as much as the one before, so that all of it is less than the tenth that is left to the user's apps.
        """
        told = REMEMBERED / 2 ** min(sessions - 1, 10)
        if self._few >= self._least * told:  # cells that are told of may not be counted closely yet
            for cell, count in enumerate(map(add, self._lately, self._before)):
                if count >= self._least * told:
                    self._watch_closely(cell, now)
        found = {
            cell
            for window in self._windows
            if window.highest >= window.limit * told  # hardly ever
            for cell, count in enumerate(window.sums)
            if count >= window.limit * told
        }
        return [
            [cell, *(window.over(cell, now) + self._open[cell] for window in self._windows)] for cell in sorted(found)
        ]

    def remember(self, busy: Iterable[Iterable[int]], end: float, now: float) -> None:
        """Count what an earlier session said of its busy cells; all of it was over at `end`."""
        for cell, *counts in busy:
            self._watch_closely(cell % self._cells, now)
            for window, count in zip(self._windows, counts, strict=False):
                window.add(cell % self._cells, min(end, now), now, count)

    def _count_closely(self, cell: int, end: float, now: float) -> None:
        for window in self._windows:
            window.add(cell, end, now)

    def _watch_closely(self, cell: int, now: float) -> None:
        """Count it in every window from now on, and what the plain counter has as if all of it had ended now.

        So they hold too much for one window, and never too little.
        """
        if self._closely[cell]:
            return
        if now >= self._next_turn:
            self._turn(now)
        self._closely[cell] = True
        for window in self._windows:
            window.add(cell, now, now, self._lately[cell] + self._before[cell])

    def _turn(self, now: float) -> None:
        """Let the plain counters forget what ended a longest window ago; what came since the last turn stays."""
        nothing = array("I", bytes(4 * self._cells))
        all_over = now >= self._next_turn + self._longest.length
        self._before, self._lately = nothing if all_over else self._lately, nothing[:]
        self._next_turn = now + self._longest.length


class _Window:
    """Requests that are over, by the bucket of time in which they ended: a ring of buckets and their sum a cell.

    A request may end up to `ahead` seconds from now, so the ring holds the buckets of one window, the one that is being
    filled, and those ahead.
    """

    __slots__ = ("_counts", "_moved", "_size", "_width", "_zeros", "highest", "length", "limit", "sums")

    def __init__(self, rate: Rate, ahead: float, cells: int) -> None:
        self.limit = rate.limit
        self.length = rate.per * (1 + CLOCK_MARGIN)
        self._width = self.length / BUCKETS
        self._size = BUCKETS + 1 + math.ceil(ahead / self._width) + 1
        self._counts = array("H", bytes(2 * cells * self._size))
        self._zeros = array("H", bytes(2 * self._size))
        self.sums = array("I", bytes(4 * cells))
        """What each cell held when it last moved on: never less than it holds now."""
        self.highest = 0
        """The most that any cell ever held."""
        self._moved = array("q", bytes(8 * cells))
        """The bucket of time up to which each cell has moved on."""

    def over(self, cell: int, now: float) -> int:
        """How many that are over still count."""
        bucket = int(now // self._width)
        if bucket > self._moved[cell]:
            self._move_on(cell, bucket)
        return self.sums[cell]

    def add(self, cell: int, end: float, now: float, count: int = 1) -> None:
        """Count a request, or several, until one window after their `end`."""
        width, size, sums, counts = self._width, self._size, self.sums, self._counts
        bucket = int(now // width)
        if bucket > self._moved[cell]:
            self._move_on(cell, bucket)
        of = bucket if end == now else int(end // width)
        if of >= bucket - BUCKETS:  # else it has passed
            at = cell * size + of % size
            if (before := counts[at]) + count > HIGHEST_COUNT:
                count = HIGHEST_COUNT - before  # more than any limit is full, whatever it is
            counts[at] = before + count
            sums[cell] = held = sums[cell] + count
            self.highest = max(self.highest, held)

    def moves_on_at(self, cell: int) -> float:
        """When the oldest bucket is forgotten, or the one being filled if all are empty: what is open may end in it."""
        moved, row = self._moved[cell], cell * self._size
        filled = (each for each in range(moved - BUCKETS, moved) if self._counts[row + each % self._size])
        return (next(filled, moved) + BUCKETS + 1) * self._width + ROUNDING

    def _move_on(self, cell: int, bucket: int) -> None:
        """Forget the buckets whose last moment is a window ago."""
        moved = self._moved[cell]
        self._moved[cell] = bucket
        if self.sums[cell]:
            size, row = self._size, cell * self._size
            start = (moved - BUCKETS) % size
            end = start + min(bucket - moved, size)
            self._forget(cell, row + start, row + min(end, size))
            if end > size:
                self._forget(cell, row, row + end - size)

    def _forget(self, cell: int, start: int, end: int) -> None:
        self.sums[cell] -= sum(self._counts[start:end])
        self._counts[start:end] = self._zeros[: end - start]


T = TypeVar("T")


class HeldBack(Generic[T]):
    """What has to wait because its user had enough for now: one queue a cell, looked at when its cell has moved on."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self.queues: dict[int, deque[T]] = {}
        """By their cells; whoever is of one of these has to wait behind the others."""
        self._waiting: list[tuple[float, int]] = []
        """When to look at which cell again; a cell with a queue is here or among those that may have room."""
        self._may_go: deque[int] = deque()

    def hold(self, item: T, cell: int, now: float, *, first: bool = False) -> None:
        """Let an item wait behind the others of its cell, or before them."""
        queue = self.queues.get(cell)
        if queue is None:
            queue = self.queues[cell] = deque()
            heapq.heappush(self._waiting, (self._users.look_again_at(cell, now), cell))
        if first:
            queue.appendleft(item)
        else:
            queue.append(item)

    def next(self, now: float) -> T | None:
        """Take an item whose cell has room, if there is one; cells take turns."""
        while self._waiting and self._waiting[0][0] <= now:
            self._may_go.append(heapq.heappop(self._waiting)[1])
        while self._may_go:
            cell = self._may_go.popleft()
            if not self._users.has_room(cell, now):
                heapq.heappush(self._waiting, (self._users.look_again_at(cell, now), cell))
                continue
            queue = self.queues[cell]
            item = queue.popleft()
            if queue:
                self._may_go.append(cell)
            else:
                del self.queues[cell]
            return item
        return None

    def next_due(self) -> float | None:
        """When to look again, once there is nothing more to take."""
        return self._waiting[0][0] if self._waiting else None

    def take_out(self, chosen: Callable[[T], bool]) -> list[T]:
        """Give back all items that are chosen; the others wait on in their order."""
        gone: list[T] = []
        for cell, queue in list(self.queues.items()):
            gone += filter(chosen, queue)
            left = deque(item for item in queue if not chosen(item))
            if left:
                self.queues[cell] = left
            else:
                del self.queues[cell]
        self._waiting = [each for each in self._waiting if each[1] in self.queues]
        heapq.heapify(self._waiting)
        self._may_go = deque(cell for cell in self._may_go if cell in self.queues)
        return gone

    def __len__(self) -> int:
        """Items that wait."""
        return sum(map(len, self.queues.values()))
