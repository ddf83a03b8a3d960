"""What a run did when: requests, answers, trouble and waiting over time, in memory that does not grow with the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moe_bulk.outcome import Attempt

MOST_BINS = 256
"""Where there would be more, two neighbours become one, which lasts twice as long."""

NARROWEST = 0.25
"""Seconds that a bin lasts at first."""

RATES_KEPT = 50
"""Limits that earlier sessions had: the last ones."""

_LAST_SECOND = 253_402_300_799  # of the year 9999
_MOST = 2**60
_log = math.log
_GROWTH = _log(1.1)
_WIDTHS = frozenset(NARROWEST * 2**doubled for doubled in range(64))
"""How long a bin can last; one of the longest holds all time that there is."""

Waiting = Literal["", "pause", "outage"]


@dataclass(slots=True)
class Bin:
    """What happened within one bin: from epoch second `at` on, for `seconds`.

    `throttled` counts answers that were 429, `troubled` requests without a usable answer and those answered 5xx;
    `paused` and `out` are seconds in which everybody waited because of a pause or an outage.
    """

    at: float = 0.0
    seconds: float = NARROWEST
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    troubled: int = 0
    paused: float = 0.0
    out: float = 0.0
    latencies: dict[int, int] = field(default_factory=dict)
    """How many answers took how long, in steps of 10 %."""

    def add(self, other: Bin) -> None:
        """Take in what happened in another bin."""
        self.requests += other.requests
        self.retries += other.retries
        self.throttled += other.throttled
        self.troubled += other.troubled
        self.paused += other.paused
        self.out += other.out
        for step, count in other.latencies.items():
            self.latencies[step] = self.latencies.get(step, 0) + count

    def percentile(self, share: float) -> float | None:
        """The latency that this share of the answers did not exceed, in milliseconds to 5 %; None without answers."""
        left = max(1, math.ceil(share * sum(self.latencies.values())))
        for step in sorted(self.latencies):
            left -= self.latencies[step]
            if left <= 0:
                return (math.exp((step + 0.5) * _GROWTH) - 1) / 1000
        return None

    def numbers(self) -> list[object]:
        """All of it but when, as JSON can hold it."""
        waited = [round(self.paused, 3), round(self.out, 3)]
        steps = list(chain.from_iterable(self.latencies.items()))
        return [self.requests, self.retries, self.throttled, self.troubled, *waited, steps]


class Timeline:
    """What a run did when, over all its sessions.

    `epoch` turns boot-clock seconds into epoch seconds when added to them. Times without requests take no bins, so
    that sessions with days between them are told as finely as if they had followed each other.

    >>> timeline = Timeline(10_000, 60.0)
    >>> timeline.sent(12.3)
    >>> [(each.at, each.requests) for each in timeline.bins()]
    [(12.25, 1)]
    """

    def __init__(self, limit: int, per: float, epoch: float = 0.0) -> None:
        self.width = NARROWEST
        self.rates: list[tuple[float, int, float]] = []
        """From when on (epoch seconds) which limit held, in how many seconds."""
        self._limit, self._per, self._epoch = limit, per, epoch
        self._bins: dict[int, Bin] = {}
        self._told: dict[int, list[object]] = {}
        self._bin = Bin()
        self._index: int | None = None
        self._end = -math.inf

    def sent(self, *times: float, again: bool = False) -> None:
        """Requests left at these boot-clock seconds, which never go back."""
        if times and times[-1] < self._end:  # all in one bin, as nearly always
            self._bin.requests += len(times)
            self._bin.retries += again * len(times)
            return
        for at in times:
            if at >= self._end:
                self._turn(at)
            self._bin.requests += 1
            self._bin.retries += again

    def answered(self, *attempts: Attempt) -> None:
        """Requests are over."""
        log, growth, latencies = _log, _GROWTH, self._bin.latencies
        for attempt in attempts:
            _, at, ms, http_status, _ = attempt
            if at + ms / 1000 >= self._end:
                self._turn(at + ms / 1000)
                latencies = self._bin.latencies
            if http_status != 200:
                _count_answer(self._bin, attempt)
                continue
            # the same in few steps: this is done for every row
            step = int(log(ms * 1000 + 1) / growth)
            latencies[step] = latencies.get(step, 0) + 1

    def waited(self, at: float, seconds: float, why: Waiting) -> None:
        """Everybody waited, for so many seconds until boot-clock second `at`."""
        if at >= self._end:
            self._turn(at)
        if why == "pause":
            self._bin.paused += seconds
        elif why == "outage":
            self._bin.out += seconds

    def read_back(self, attempt: Attempt, *, again: bool, answered: bool, sent: bool) -> None:
        """Count what the file of results tells of a request: that it was `sent`, that it was `answered`, or both."""
        if sent:
            found = self._at(attempt.sent)
            found.requests += 1
            found.retries += again
        if answered:
            _count_answer(self._at(attempt.sent + attempt.ms / 1000), attempt)

    def bins(self) -> list[Bin]:
        """What happened, in the order of time."""
        return [self._bins[index] for index in sorted(self._bins)]

    # -- bins --------------------------------------------------------------------------------------------------------

    def _turn(self, at: float) -> None:
        """Go on in the bin to which the boot-clock second `at` belongs."""
        epoch = at + self._epoch
        if not self.rates or self.rates[-1][1:] != (self._limit, self._per):
            self.rates = [*self.rates[1 - RATES_KEPT :], (round(epoch, 3), self._limit, self._per)]
        if self._index is not None:
            self._told.pop(self._index, None)
        self._bin = self._at(epoch)
        self._index = self._index_of(epoch)
        self._end = (self._index + 1) * self.width - self._epoch

    def _index_of(self, epoch: float) -> int:
        return int(min(max(epoch, 0.0), _LAST_SECOND) / self.width)

    def _at(self, epoch: float) -> Bin:
        index = self._index_of(epoch)
        if index not in self._bins:
            self._bins[index] = Bin(index * self.width, self.width)
            while len(self._bins) > MOST_BINS:
                self._double()
            index = self._index_of(epoch)
        self._told.pop(index, None)
        return self._bins[index]

    def _double(self) -> None:
        before, self._bins, self._told = self._bins, {}, {}
        self.width *= 2
        for index in sorted(before):
            found = self._bins.setdefault(index // 2, Bin(index // 2 * self.width, self.width))
            found.add(before[index])
        self._end, self._index = -math.inf, None  # the next event finds its bin anew

    # -- what a later session needs ----------------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """All that `restored` needs to go on; what is over is told in lists that never change any more."""
        for index, each in self._bins.items():
            if index not in self._told or index == self._index:
                self._told[index] = [index, *each.numbers()]
        return {"width": self.width, "rates": [list(each) for each in self.rates], "bins": list(self._told.values())}

    @classmethod
    def restored(cls, state: Any, limit: int, per: float, epoch: float = 0.0) -> Self:
        """Go on in a new session from the `state` of the one before; raises ValueError for what is none."""
        self = cls(limit, per, epoch)
        match state:
            case {"width": float(width), "rates": list(rates), "bins": list(bins)} if width in _WIDTHS:
                self.width = width
            case _:
                raise ValueError("the timeline is damaged")
        if len(bins) > MOST_BINS or len(rates) > RATES_KEPT:
            raise ValueError("the timeline is damaged: it is longer than one can be")
        self.rates = [_restored_rate(each) for each in rates]
        for each in bins:
            index, found = _restored_bin(each, width)
            if index in self._bins:
                raise ValueError("the timeline is damaged: a bin stands there twice")
            self._bins[index] = found
        return self


def _count_answer(found: Bin, attempt: Attempt) -> None:
    if attempt.error is None:
        step = int(math.log(attempt.ms * 1000 + 1) / _GROWTH)
        found.latencies[step] = found.latencies.get(step, 0) + 1
        status = attempt.http_status or 0
        if status == 429:
            found.throttled += 1
        if status < 500:
            return
    found.troubled += 1


def _restored_rate(said: object) -> tuple[float, int, float]:
    match said:
        case [float(since) | int(since), int(limit), float(per) | int(per)] if (
            0 <= since <= _LAST_SECOND and 0 < limit <= _MOST and 0 < per <= _MOST
        ):
            return float(since), limit, float(per)
    raise ValueError("the timeline is damaged: a limit that cannot be")


def _restored_bin(said: object, width: float) -> tuple[int, Bin]:
    match said:
        case [
            int(index),
            int(requests),
            int(retries),
            int(throttled),
            int(troubled),
            float(paused) | int(paused),
            float(out) | int(out),
            list(steps),
        ] if (
            all(map(_is_count, (index, requests, retries, throttled, troubled)))
            and index * width <= _LAST_SECOND
            and all(0 <= seconds <= _MOST and type(seconds) is not bool for seconds in (paused, out))
        ):
            counts = requests, retries, throttled, troubled
            return index, Bin(index * width, width, *counts, float(paused), float(out), _restored_steps(steps))
    raise ValueError("the timeline is damaged: a bin that cannot be")


def _restored_steps(steps: Sequence[object]) -> dict[int, int]:
    numbers = [each for each in steps if type(each) is int and 0 <= each <= _MOST]
    found = dict(zip(numbers[::2], numbers[1::2], strict=False))
    if len(numbers) != len(steps) or 2 * len(found) != len(steps) or any(step > 1_000 for step in found):
        raise ValueError("the timeline is damaged: latencies that cannot be")
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST
