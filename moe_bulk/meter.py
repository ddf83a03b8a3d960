"""The numbers of a run while it goes on: how far, how fast, how long still, and what it waits for. Plain code."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_bulk.latency import Latency
from moe_bulk.waiting import Waits

if TYPE_CHECKING:
    from moe_bulk.tally import Summary
    from moe_bulk.view import RunView

FORMAT = 1
"""Version of the snapshot."""

RATE_OVER = 10.0
"""Seconds over which the rate is taken, and what the run waits for."""
LOOK_BACK = 60.0
"""Seconds over which latency and the time that is left are taken."""
LATENCY_EVERY = 5.0
"""Seconds between two looks at all latencies so far; what lies between two looks is the latency of that time."""
SOON = 5.0
"""Seconds of readings from which on it is told how long it will take."""
MOSTLY = 0.5
"""The share of the last seconds that writing has to take before it counts as what is waited for."""

NEARLY = 0.97
"""The share of the pace from which on the pace is what is waited for, whatever was seen."""


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    requests: int
    share: float | None
    writing: float
    waits_for: Waits | None


class Meter:
    """Turns a run's counters into what people want to know; `look` now and then, at least every few seconds."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._readings: deque[_Reading] = deque()
        self._latencies: deque[tuple[float, list[int]]] = deque()

    def look(self, now: float) -> None:
        """Take a reading at `now` (seconds of any clock that never goes back)."""
        view = self.view
        reading = _Reading(now, view.tally.requests, self.share, view.seconds_writing, view.waits_for)
        self._readings.append(reading)
        while now - self._readings[0].at > LOOK_BACK:
            self._readings.popleft()
        if not self._latencies or now - self._latencies[-1][0] >= LATENCY_EVERY:
            self._latencies.append((now, view.tally.latency.state()))
            while now - self._latencies[0][0] > LOOK_BACK + LATENCY_EVERY:
                self._latencies.popleft()

    def _lately(self) -> list[_Reading]:
        """The readings of the last seconds, the oldest first."""
        return [each for each in self._readings if self._readings[-1].at - each.at <= RATE_OVER]

    @property
    def per_second(self) -> float:
        """Requests a second over the last seconds; 0 before there are two readings."""
        lately = self._lately()
        if not lately or lately[-1].at == lately[0].at:
            return 0.0
        return (lately[-1].requests - lately[0].requests) / (lately[-1].at - lately[0].at)

    @property
    def share(self) -> float | None:
        """How much of the input is settled, by bytes, else by rows, 0 to 1; None where its size is not known."""
        counts, (done, total) = self.view.tally.counts, self.view.bytes_read
        if not counts["read"]:
            return None
        settled = counts["read"] - counts["unsettled"]
        if total:
            return min(1.0, done / total) * settled / counts["read"]
        expected = self.view.rows_expected
        return min(1.0, settled / expected) if expected else None

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at the speed of the last minute; None where nobody can know, or nothing moves."""
        if not self._readings or self.waits_for in (Waits.OUTAGE, Waits.PAUSE, Waits.REDIS, Waits.STOP):
            return None
        first, last = next((each for each in self._readings if each.share is not None), None), self._readings[-1]
        if first is None or first.share is None or last.share is None or last.at - first.at < SOON:
            return None
        speed = (last.share - first.share) / (last.at - first.at)
        return (1.0 - last.share) / speed if speed > 0 else None

    @property
    def waits_for(self) -> Waits | None:
        """What keeps the run from going faster: outage, pause, Redis and stop at once, else what mostly did lately."""
        lately = self._lately()
        if not lately:
            return self.view.waits_for
        if (now := lately[-1].waits_for) in (Waits.OUTAGE, Waits.PAUSE, Waits.REDIS, Waits.STOP, Waits.END):
            return now
        seconds = lately[-1].at - lately[0].at
        if seconds and (lately[-1].writing - lately[0].writing) / seconds > MOSTLY:
            return Waits.DISK
        # what was over before now is not told, however long it took
        passing = (Waits.OUTAGE, Waits.PAUSE, Waits.REDIS, Waits.STOP)
        mostly = Counter(each.waits_for for each in lately if each.waits_for not in passing).most_common(1)[0][0]
        if mostly is None and self.per_second >= NEARLY * self.view.rate.per_second * self.view.pace_share:
            return Waits.PACE  # on a busy machine requests go in bursts: seldom is one seen waiting
        return mostly

    @property
    def latency_ms(self) -> tuple[float | None, float | None]:
        """How long half and 95 % of the answers took at most, of those in the last minute; None without answers."""
        now = self.view.tally.latency.state()
        before = self._latencies[0][1] if self._latencies else []
        lately = Latency.restored([count - old for count, old in zip(now, before + [0] * len(now), strict=False)])
        return lately.percentile(0.5), lately.percentile(0.95)

    def snapshot(self, epoch: float) -> dict[str, object]:
        """The numbers, for machines; `epoch` is the time of day in seconds."""
        view = self.view
        done, total = view.bytes_read
        median, most = self.latency_ms
        return {
            "format": FORMAT,
            "run_id": view.run_id,
            "at": round(epoch, 3),
            **view.tally.counts,
            "requests": view.tally.requests,
            "retries": view.tally.retries,
            "pauses": view.pauses,
            "per_second": round(self.per_second, 1),
            "limit_per_second": round(view.rate.per_second, 3),
            "pace_share": round(view.pace_share, 3),
            "in_flight": view.in_flight,
            "retrying": view.retrying,
            "parked": view.parked,
            "latency_ms": {"p50": _rounded(median, 1), "p95": _rounded(most, 1)},
            "waits_for": self.waits_for,
            "bytes_read": done,
            "bytes": total,
            "share": _rounded(self.share, 4),
            "seconds_left": _rounded(self.seconds_left, 0),
        }


def finished(summary: Summary, epoch: float) -> dict[str, object]:
    """What a snapshot tells of a run that was finished before: nothing goes on, and nothing is left."""
    latency = summary["latency_ms"]
    return {
        "format": FORMAT,
        "run_id": None,
        "at": round(epoch, 3),
        **summary["counts"],
        "requests": summary["requests"],
        "retries": summary["retries"],
        "pauses": summary["pauses"],
        "latency_ms": {"p50": latency["p50"], "p95": latency["p95"]},
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
