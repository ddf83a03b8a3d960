"""Fold attempts and results into the numbers of a run, in memory that does not grow with it."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NotRequired, TypedDict

from moe_bulk.outcome import FAILED, FORMAT, Result, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAUSES_KEPT = 100
_CAUSES_SHOWN = 10
_EXAMPLE_KEPT = 500
_REASON_READ = 1_000

_FIELD = re.compile(
    r"\b((?:customer|device|push)_id|platform|model|(?:app|os)_version|moe_(?:gaid|push_\w*opted)|idfv|forwarded_for)\b"
)
# a value's `repr`: whole; cut after 80 characters, as `device` shows long ones; whole with a `…` of its own; else all
_QUOTED = re.compile(
    r"""(?<!\w)b?(?:'(?:[^'\\…]|\\.)*'(?!\w)|"(?:[^"\\…]|\\.)*"(?!\w)|['"].{79}…"""
    r"""|'(?:[^'\\]|\\.){,80}'(?!\w)|"(?:[^"\\]|\\.){,80}"(?!\w)|['"].*)""",
    re.DOTALL,
)

_RETRY = "run `moe-bulk upload dead-letter.ndjson`"
_CORRECT = f"correct {{field}} in dead-letter.ndjson, then {_RETRY}"
_DISLIKED = "MoEngage, or a firewall on the way, dislikes these records: ask their support why, by `request_id`"
_REMEDIES: tuple[tuple[Status, str, str], ...] = (
    (Status.EXHAUSTED, "429 .*", f"others used up the workspace's limit: {_RETRY} later"),
    (Status.EXHAUSTED, ".*", f"this is passing trouble: {_RETRY} when it is over"),
    (Status.REJECTED, "413 .*", f"MoEngage finds these records too large: {_CORRECT}"),
    (Status.REJECTED, "(403|409|415) .*", _DISLIKED),
    (Status.REJECTED, r"\w+ (invalidparams|paramsrequired|blacklisted).*", _DISLIKED),
    (Status.REJECTED, r"\w+ missing.*", f"fill in {{field}} in dead-letter.ndjson, then {_RETRY}"),
    (Status.REJECTED, ".*", _CORRECT),
    (Status.INVALID, "unreadable", "repair these lines in the source and upload them again"),
    (Status.INVALID, r".*\b(missing|empty|required)\b.*", "fill in {field}, or leave these rows out"),
    (Status.INVALID, ".*", _CORRECT),
)
"""By status and by what `_trouble` says, the first that fits: a plain next step."""


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


class Failures(TypedDict):
    """Failures with one cause. `cause` holds no value of any row, `example` does: it stays in the run folder."""

    cause: str
    status: str
    count: int
    first_line: int
    example: str
    remedy: str


class Summary(TypedDict):
    """What `summary.json` holds. Times are epoch seconds."""

    format: int
    version: str
    exit_code: int
    started_at: float
    ended_at: float
    counts: dict[str, int]
    requests: int
    retries: int
    pauses: int
    latency_ms: Latencies
    rate: RateUsed
    failures: list[Failures]
    settings: NotRequired[dict[str, object]]
    stopped: NotRequired[str]


class Latency:
    """How long answers took, to 1 %, in some hundred numbers however many there are.

    A histogram whose buckets grow by 2 % each (the sketch of https://arxiv.org/abs/1908.10693); 0.001 ms is its least.
    """

    GROWTH = 1.02
    LEAST = 0.001

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Count one answer."""
        self.count += 1
        self._buckets[math.ceil(math.log(max(ms, self.LEAST), self.GROWTH))] += 1

    def percentile(self, share: float) -> float | None:
        """The latency that this share of the answers did not exceed, in milliseconds; None without answers."""
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                # the value that is equally far, in percent, from both ends of its bucket
                return 2 * self.GROWTH**bucket / (1 + self.GROWTH)
        return None


class Busiest:
    """The window of `per` seconds, wherever it starts, that held the most requests; it holds one window's times."""

    def __init__(self, per: float) -> None:
        self.count = 0
        self.at: float | None = None
        self._per = per
        self._recent: deque[float] = deque()

    def add(self, at: float) -> None:
        """Count a request sent at `at` seconds, not earlier than the one before."""
        self._recent.append(at)
        while at - self._recent[0] >= self._per:
            self._recent.popleft()
        if len(self._recent) > self.count:
            self.count, self.at = len(self._recent), self._recent[0]


@dataclass(slots=True)
class _Cause:
    """Failures that are told together, and the source of the first of them."""

    said: Failures
    source: str

    def add(self, result: Result) -> None:
        self.said["count"] += 1
        # results come as they settle: an earlier line may come later
        if result.position.source == self.source and result.position.line < self.said["first_line"]:
            self.said["first_line"], self.said["example"] = result.position.line, _example(result)


class Tally:
    """The numbers of one run, while it goes on and at its end.

    `limit` and `per` are the rate, `epoch` is what turns boot-clock seconds into epoch seconds when added to them.

    >>> tally = Tally(10_000, 60.0)
    >>> tally.read(3)
    >>> tally.counts["unsettled"]
    3
    """

    def __init__(self, limit: int, per: float, epoch: float = 0.0) -> None:
        self.requests = 0
        self.retries = 0
        self.unanswered = 0
        self.latency = Latency()
        self.busiest = Busiest(per)
        self._limit = limit
        self._per = per
        self._epoch = epoch
        self._rows = 0
        self._statuses: Counter[Status] = Counter()
        self._causes: dict[tuple[Status, str], _Cause] = {}
        self._first: float | None = None
        self._last = 0.0

    def read(self, rows: int = 1) -> None:
        """Count rows that were read."""
        self._rows += rows

    def sent(self, at: float) -> None:
        """Count a request that left at `at` (boot-clock seconds, never going back)."""
        self.requests += 1
        self.busiest.add(at)
        self._first = at if self._first is None else self._first
        self._last = at

    def answered(self, ms: float, *, ok: bool) -> None:
        """Count the end of a request; `ok` where a complete answer came. Only those tell how long answers take."""
        if ok:
            self.latency.add(ms)
        else:
            self.unanswered += 1

    def retried(self) -> None:
        """Count a request that was not its record's first."""
        self.retries += 1

    def settled(self, result: Result) -> None:
        """Count the last word on a row."""
        self._statuses[result.status] += 1
        if result.failed:
            self._cause(result).add(result)

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
        """How much of the limit was used between the first request and the last: 0 to 1, None below two requests.

        n requests have n - 1 gaps between them; at the limit each gap is `per / limit` long.
        """
        if self._first is None or self.requests < 2:
            return None
        possible = (self._last - self._first) * self._limit / self._per
        gaps = self.requests - 1
        return 1.0 if gaps >= possible else gaps / possible

    def summary(
        self,
        *,
        started_at: float,
        ended_at: float,
        exit_code: int,
        pauses: int,
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
            "counts": self.counts,
            "requests": self.requests,
            "retries": self.retries,
            "pauses": pauses,
            "latency_ms": self._latency_ms(),
            "rate": self._rate(),
            "failures": sorted((cause.said.copy() for cause in self._causes.values()), key=lambda said: -said["count"]),
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
        at = None if self.busiest.at is None else round(self.busiest.at + self._epoch, 6)
        return {
            "limit": self._limit,
            "per": self._per,
            "busiest_window": {"count": self.busiest.count, "at": at},
            "used_share": _rounded(self.used_share, 4),
        }

    def _cause(self, result: Result) -> _Cause:
        text = cause_of(result)
        if (result.status, text) not in self._causes and len(self._causes) >= _CAUSES_KEPT:
            text = "other"
        key = (result.status, text)
        if key not in self._causes:
            remedy = "see the reasons in dead-letter.ndjson" if text == "other" else remedy_for(result)
            self._causes[key] = _Cause(_first(result, text, remedy), result.position.source)
        return self._causes[key]


def _first(result: Result, cause: str, remedy: str) -> Failures:
    line, example = result.position.line, _example(result)
    return Failures(cause=cause, status=result.status.value, count=0, first_line=line, example=example, remedy=remedy)


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _example(result: Result) -> str:
    reason = result.reason or ""
    return reason if len(reason) <= _EXAMPLE_KEPT else f"{reason[:_EXAMPLE_KEPT]}…"


def cause_of(result: Result) -> str:
    """Why it failed, in words that other rows with the same trouble share, and without a value of any row.

    What the service says may repeat values, so of its answers only the kind and the field count; of our own reasons the
    first, with `…` for what is quoted or holds digits.
    """
    if result.error_type is None and result.http_status is None:
        return _pattern(_reason(result))
    status = f"HTTP {result.http_status}" if result.http_status else ""
    kind = _without_numbers((result.error_type or "")[:80])
    return " ".join(filter(None, (status, kind, _field(_reason(result)))))


def remedy_for(result: Result) -> str:
    """What to do about it, in one line."""
    trouble = _trouble(result)
    found = next(text for status, form, text in _REMEDIES if status is result.status and re.fullmatch(form, trouble))
    field = _field(_reason(result).partition("; ")[0])
    return found.replace("{field}", field or "what the reason names")


def _trouble(result: Result) -> str:
    if result.status is Status.INVALID:
        return "unreadable" if result.row.fields is None else _pattern(_reason(result))
    kind = "".join(filter(str.isalnum, result.error_type or "")).lower()
    return f"{result.http_status or 'no'} {kind}"


def _reason(result: Result) -> str:
    return (result.reason or "no reason given")[:_REASON_READ]


def _pattern(reason: str) -> str:
    return _without_numbers(_QUOTED.sub("…", reason).partition("; ")[0])


def _without_numbers(text: str) -> str:
    # word by word: a pattern for it would be slow on long words without digits
    return " ".join("…" if any(map(str.isdigit, word)) else word for word in text.split())


def _field(reason: str) -> str | None:
    found = _FIELD.search(_QUOTED.sub("…", reason)) or _FIELD.search(reason)
    return found[1] if found else None


def lines(summary: Summary) -> list[str]:
    """The run in a few plain lines for people; they hold no value of any row."""
    failures = summary["failures"]
    told = [
        f"  {each['count']:,} {each['status']}: {each['cause']} (first: line {each['first_line']}). "
        f"{each['remedy'][:1].upper()}{each['remedy'][1:]}"
        for each in failures[:_CAUSES_SHOWN]
    ]
    if len(failures) > _CAUSES_SHOWN:
        told.append(f"  and {len(failures) - _CAUSES_SHOWN} more causes: see summary.json")
    counts = ", ".join(f"{count:,} {name}" for name, count in summary["counts"].items() if name != "read" and count)
    return [f"Read {summary['counts']['read']:,} rows: {counts or 'nothing to do'}", *_requests(summary), *told]


def _requests(summary: Summary) -> list[str]:
    rate, latency = summary["rate"], summary["latency_ms"]
    said = [f"Sent {summary['requests']:,} requests ({summary['retries']:,} retries, {summary['pauses']:,} pauses)"]
    at, share = rate["busiest_window"]["at"], rate["used_share"]
    if at is not None:
        began = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        used = "" if share is None else f"{share:.1%} of the limit was used; "
        said.append(
            f"At most {rate['busiest_window']['count']:,} in any {rate['per']:g} s (from {began}), "
            f"the limit is {rate['limit']:,}; {used}".rstrip("; ")
        )
    if latency["p50"] is not None:
        said.append("Answers took " + ", ".join(f"{ms:,.0f} ms ({name})" for name, ms in latency.items()))
    return said
