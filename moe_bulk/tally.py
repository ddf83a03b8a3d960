"""Fold attempts and results into the numbers of a run, in memory that does not grow with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from math import floor
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict, cast

from moe_bulk.amounts import counted
from moe_bulk.busiest import Busiest, Span
from moe_bulk.causes import Causes, Failures, shown
from moe_bulk.latency import Latency
from moe_bulk.outcome import FAILED, FORMAT, Attempt, Status, rounded
from moe_bulk.timeline import Timeline
from moe_bulk.times import Times
from moe_bulk.usage import used

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from moe_bulk.outcome import Result

_MOST = 2**60
"""No number is larger: a restored one that is would make sums that JSON cannot hold."""
_LAST_SECOND = 253_402_300_799  # of the year 9999: `datetime` knows no later one


class Latencies(TypedDict):
    """Milliseconds until a complete answer; None where there was none."""

    p50: float | None
    p95: float | None
    p99: float | None


class Window(TypedDict):
    """The window that held the most requests: how many, and when it began (epoch seconds)."""

    count: int
    at: float | None


class RateUsed(TypedDict):
    """The limit, and what the run made of it."""

    limit: int
    per: float
    busiest_window: Window
    used_share: float | None
    counted_since: NotRequired[float]
    """From when on the busiest window was looked for, where that is not from the beginning (epoch seconds)."""


class Summary(TypedDict):
    """What `summary.json` holds, of all sessions in which the run was made. Times are epoch seconds."""

    format: int
    version: str
    exit_code: int
    started_at: float
    ended_at: float
    sessions: int
    counts: dict[str, int]
    requests: int
    retries: int
    pauses: int
    latency_ms: Latencies
    rate: RateUsed
    failures: list[Failures]
    settings: NotRequired[dict[str, object]]
    stopped: NotRequired[str]
    service_said: NotRequired[str]
    """MoEngage's own words, where they are why it stopped: they may repeat a row's values."""
    sources: NotRequired[int]
    """How many files or other sources the rows came from."""


class Tally:
    """The numbers of one run, while it goes on and at its end, over all its sessions.

    `limit` and `per` are the rate, `epoch` is what turns boot-clock seconds into epoch seconds when added to them.
    `pauses` and `sessions` are the caller's to count.

    >>> tally = Tally(10_000, 60.0)
    >>> tally.read(3)
    >>> tally.counts["unsettled"]
    3
    """

    def __init__(self, limit: int, per: float, epoch: float = 0.0) -> None:
        self.requests = self.retries = self.unanswered = self.pauses = 0
        self.sessions = 1
        self.latency = Latency()
        self.busiest = Busiest(per)
        self.counted_since: float | None = None
        """From when on (epoch seconds) the busiest window was looked for, where an earlier session's is not known."""
        self.timeline = Timeline(limit, per, epoch)
        self._limit, self._per, self._epoch = limit, per, epoch
        self._rows = 0
        self._statuses: Counter[Status] = Counter()
        self.causes = Causes()
        self._span = Span(limit / per)
        self._last_span = Span(limit / per)
        self._gaps, self._possible = 0, 0.0

    def read(self, rows: int = 1) -> None:
        """Count rows that were read."""
        self._rows += rows

    def sent(self, *times: float) -> None:
        """Count requests by when they left (boot-clock seconds, never going back)."""
        self.requests += len(times)
        self.busiest.add(*times)
        self._span.add(*times)

    def answered(self, *times: float, ok: bool = True) -> None:
        """Count the ends of requests, by the milliseconds until then; `ok` where complete answers came.

        Only those tell how long answers take.
        """
        if ok:
            # to the microsecond, as a result line tells it: as `rounded`, without a call for each
            self.latency.add(*[floor(ms * 1e3 + 0.5) / 1e3 for ms in times])
        else:
            self.unanswered += len(times)

    def retried(self) -> None:
        """Count a request that was not its record's first."""
        self.retries += 1

    def note(self, events: Iterable[float | Attempt]) -> None:
        """Count what happened, in its order: a record's first request left at that boot-clock second, or one is over.

        Many at once, for this is done for every row, and code that does one thing runs several times as fast.
        """
        for kind, alike in groupby(events, type):
            if kind is Attempt:
                attempts = cast("list[Attempt]", list(alike))
                self.answered(*[attempt.ms for attempt in attempts if attempt.error is None])
                self.answered(*[attempt.ms for attempt in attempts if attempt.error is not None], ok=False)
                self.timeline.answered(*attempts)
            else:
                times = cast("list[float]", list(alike))
                self.sent(*times)
                self.timeline.sent(*times)

    def settled(self, *results: Result) -> None:
        """Count the last words on some rows."""
        statuses = self._statuses
        for result in results:
            status = result.status
            statuses[status] += 1
            if status in FAILED:
                self.causes.add(result)

    def read_back(self, result: Result, since: float | None) -> None:
        """Count a row whose line stands behind the state that this tally was restored from.

        The state knows what happened up to `since` (boot-clock seconds of the last session), so only later requests and
        answers are counted; all of them where it is None. They do not count in the busiest window: tell `before`.
        """
        self.read()
        self.settled(result)
        untold = max(0, result.tries - len(result.attempts))  # the first tries, where a line has no room for them
        if since is None:
            self.requests += untold
            self.retries += max(0, untold - 1)
        for number, attempt in enumerate(result.attempts, untold):
            sent = since is None or attempt.at > rounded(since)
            answered = since is None or rounded(attempt.at + attempt.ms / 1000) > rounded(since)
            if sent:
                self.requests += 1
                self.retries += number > 0
                if since is not None:  # without it nobody knows where one session ended and the next began
                    self._last_span.add(attempt.at)
            if answered:
                self.answered(attempt.ms, ok=attempt.error is None)
            self.timeline.read_back(attempt, again=number > 0, sent=sent, answered=answered)

    def before(self, times: Iterable[float]) -> None:
        """Tell of requests that an earlier session sent, so that a window in which it ended is counted whole.

        Boot-clock seconds of this session, in any order; what is later than the next request counts as sent with it.
        """
        earlier = sorted(times)
        for at in earlier:
            self.busiest.add(at)
        self.busiest.recent = Times(earlier)  # all of them: the next request may bring old ones back into one window

    def state(self) -> dict[str, object]:
        """All that `restored` needs to go on: plain values for JSON, and not more of them the longer the run is."""
        return {
            "sessions": self.sessions,
            "statuses": {status.value: self._statuses[status] for status in Status},
            "causes": self.causes.state(),
            "requests": self.requests,
            "retries": self.retries,
            "unanswered": self.unanswered,
            "pauses": self.pauses,
            "latency": self.latency.state(),
            "busiest": {
                "count": self.busiest.count,
                "at": self._busiest_at() or 0.0,
                "per": float(self._per),
                "since": self.counted_since or 0.0,
            },
            "gaps": self._gaps + self._last_span.gaps,
            "possible": self._possible + self._last_span.possible,
            "span": asdict(self._span),
            "timeline": self.timeline.state(),
        }

    @classmethod
    def restored(cls, state: Any, limit: int, per: float, epoch: float = 0.0) -> Self:
        """Go on in a new session from the `state` of the one before; raises ValueError for what is none.

        The rows read so far are those that were settled: all others are read again. The rate may be another one; where
        its window is of another length, the busiest window is the one since then.
        """
        self = cls(limit, per, epoch)
        if not isinstance(state, dict) or not _fits(state | {"timeline": []}, self.state() | {"timeline": []}):
            raise ValueError("the tally is damaged")
        self.timeline = Timeline.restored(state.get("timeline"), limit, per, epoch)
        self.sessions = state["sessions"] + 1
        self.requests, self.retries = state["requests"], state["retries"]
        self.unanswered, self.pauses = state["unanswered"], state["pauses"]
        self.latency = Latency.restored(state["latency"])
        self._statuses.update({Status(name): count for name, count in state["statuses"].items()})
        self._rows = self.settled_rows
        self.causes = Causes.restored(state["causes"])
        self._gaps, self._possible, self._last_span = state["gaps"], state["possible"], Span(**state["span"])
        busiest = state["busiest"]
        if self.causes.rows != self.failed_rows or self.retries > self.requests:
            raise ValueError("the numbers of the tally contradict each other")
        if self._last_span.possible < 0 or busiest["at"] > _LAST_SECOND:
            raise ValueError("the times of the tally cannot be")
        self.counted_since = busiest["since"] or None
        if busiest["count"] and busiest["per"] == per:
            self.busiest = Busiest(per, busiest["count"], busiest["at"] - epoch)
        return self

    @property
    def settled_rows(self) -> int:
        """Rows that have their result."""
        return self._statuses.total()

    @property
    def failed_rows(self) -> int:
        """Rows that have a dead letter."""
        return sum(self._statuses[status] for status in FAILED)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by their status, with `read` (all of them) and `unsettled` (those without a result)."""
        by_status = {status.value: self._statuses[status] for status in Status}
        return {"read": self._rows, **by_status, "unsettled": self._rows - self.settled_rows}

    @property
    def used_share(self) -> float | None:
        """How much of the limit was used between the first request of a session and its last: 0 to 1.

        n requests have n - 1 gaps between them, each `per / limit` long at the limit. None where there is no gap.
        """
        gaps = self._gaps + self._last_span.gaps + self._span.gaps
        possible = self._possible + self._last_span.possible + self._span.possible
        if not gaps:
            return None
        return 1.0 if gaps >= possible else gaps / possible

    def summary(
        self,
        *,
        started_at: float,
        ended_at: float,
        exit_code: int,
        version: str,
        settings: Mapping[str, object] | None = None,
        stopped: str | None = None,
    ) -> Summary:
        """What goes into `summary.json`: times in epoch seconds, the most frequent failures first.

        `stopped` says why the run is not finished.
        """
        summary: Summary = {
            "format": FORMAT,
            "version": version,
            "exit_code": exit_code,
            "started_at": started_at,
            "ended_at": ended_at,
            "sessions": self.sessions,
            "counts": self.counts,
            "requests": self.requests,
            "retries": self.retries,
            "pauses": self.pauses,
            "latency_ms": self._latency_ms(),
            "rate": self._rate(),
            "failures": self.causes.told(),
        }
        if settings is not None:
            summary["settings"] = dict(settings)
        if stopped is not None:
            summary["stopped"] = stopped
        return summary

    def _latency_ms(self) -> Latencies:
        at = self.latency.percentile
        return {"p50": _rounded(at(0.5)), "p95": _rounded(at(0.95)), "p99": _rounded(at(0.99))}

    def _rate(self) -> RateUsed:
        said: RateUsed = {
            "limit": self._limit,
            "per": self._per,
            "busiest_window": {"count": self.busiest.count, "at": self._busiest_at()},
            "used_share": _rounded(self.used_share, 4),
        }
        if self.counted_since is not None:
            said["counted_since"] = rounded(self.counted_since)
        return said

    def _busiest_at(self) -> float | None:
        return None if self.busiest.at is None else round(self.busiest.at + self._epoch, 6)


def _fits(value: Any, example: object) -> bool:
    """Tell whether a restored value is such a one as the example; lists are left to those who know what is in them."""
    if isinstance(example, dict):
        same = isinstance(value, dict) and value.keys() == example.keys()
        return same and all(_fits(value[name], each) for name, each in example.items())
    if isinstance(example, list):
        return isinstance(value, list)
    return type(value) in (int, type(example)) and 0 <= value <= _MOST


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def lines(summary: Summary) -> list[str]:
    """The run in a few plain lines for people; they hold no value of any row."""
    counts = ", ".join(f"{count:,} {name}" for name, count in summary["counts"].items() if name != "read" and count)
    sessions = f" in {summary['sessions']:,} sessions" if summary["sessions"] > 1 else ""
    read = f"Read {counted(summary['counts']['read'], 'row')}{sessions}: {counts or 'nothing to do'}"
    return [read, *_requests(summary), *shown(summary["failures"], several=several(summary))]


def several(summary: Summary) -> bool:
    """Whether its rows came from more than one source, so that a line's number alone says too little."""
    return summary.get("sources", 1) > 1


def _requests(summary: Summary) -> list[str]:
    rate, latency = summary["rate"], summary["latency_ms"]
    seconds = summary["ended_at"] - summary["started_at"] if summary["sessions"] == 1 else None
    retries, pauses = counted(summary["retries"], "retry", "retries"), counted(summary["pauses"], "pause")
    said = [f"Sent {counted(summary['requests'], 'request')} ({retries}, {pauses})"]
    if (at := rate["busiest_window"]["at"]) is not None:
        began = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        said.append(
            f"At most {rate['busiest_window']['count']:,} in any {rate['per']:g} s (from {began}), "
            f"the limit is {rate['limit']:,}"
        )
        said += used(summary["requests"], rate["limit"], rate["per"], rate["used_share"], seconds)
    if latency["p50"] is not None:
        said.append("Answers took " + ", ".join(f"{ms:,.0f} ms ({name})" for name, ms in latency.items()))
    return said
