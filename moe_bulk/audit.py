"""Hold a run's result lines against what its summary says of them, and name what does not add up."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import orjson

from moe_bulk.archive import look
from moe_bulk.axis import moment
from moe_bulk.errors import ConfigError
from moe_bulk.journal import DEAD_LETTER, RESULTS
from moe_bulk.outcome import FAILED, Result, Status
from moe_bulk.page import visible
from moe_bulk.record import NOTE
from moe_bulk.recount import Letters, Recount
from moe_bulk.recovery import LONGEST_LINE
from moe_bulk.spill import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from moe_bulk.archive import Past
    from moe_bulk.recount import Busiest
    from moe_bulk.tally import RateUsed, Summary

LOOK_LINES = 1_000
"""So often it is told how far the reading is."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Findings:
    """What the lines tell, and where they contradict what the run says of itself."""

    counts: dict[str, int]
    requests: int
    retries: int
    dead_letters: int
    busiest: Busiest
    limit: int | None
    per: float | None
    lower_bound: bool
    compared: bool
    contradictions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def hold(self) -> bool:
        """Whether nothing contradicts."""
        return not self.contradictions

    def as_json(self) -> dict[str, object]:
        """The same for machines."""
        window = {"count": self.busiest.least, "at": self.busiest.at, "lower_bound": self.lower_bound}
        return {
            "holds": self.hold,
            "contradictions": list(self.contradictions),
            "notes": list(self.notes),
            "counts": self.counts,
            "requests": self.requests,
            "retries": self.retries,
            "dead_letters": self.dead_letters,
            "rate": {"limit": self.limit, "per": self.per, "busiest_window": window},
        }

    def lines(self) -> list[str]:
        """The same for people; it holds no value of any row."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count) or "none"
        said = [f"Results: {sum(self.counts.values()):,} ({counts}), {self.dead_letters:,} dead letters"]
        said.append(f"Requests: {self.requests:,}, of which {self.retries:,} were retries")
        if self.busiest.at is not None:
            least = "at least " if self.lower_bound else ""
            limit = f"; the limit is {self.limit:,}" if self.limit is not None else ""
            began = moment(self.busiest.at)
            said.append(f"Busiest window: {least}{self.busiest.least:,} in {self.per:g} s, from {began} on{limit}")
        said += [f"Note: {note}" for note in self.notes]
        if self.hold:
            return [*said, "All of it holds." if self.compared else "Nothing contradicts so far."]
        count = len(self.contradictions)
        return [
            *said,
            f"{count} contradiction{'s' if count > 1 else ''}:",
            *(f"  - {it}" for it in self.contradictions),
        ]


def audit(folder: Path, watch: Callable[[int, int], None] | None = None) -> Findings:
    """Count the results of the run in `folder` anew, and compare.

    Raises ConfigError where the folder holds no results. Memory is bounded however long the run was; a temporary file
    takes 8 bytes for each row, each request and each failure. `watch` is told now and then of bytes read and bytes in
    all.
    """
    with ExitStack() as stack:
        results = stack.enter_context(_opened(folder, RESULTS))
        past = _look(folder)
        said = past.told.summary if past is not None else None
        recount = stack.enter_context(Recount(IN_MEMORY))
        letters = stack.enter_context(Letters(IN_MEMORY))
        finished = past is not None and past.finished
        since = said["rate"].get("counted_since", 0.0) if said is not None else 0.0
        _read_results(_watched(results, watch), recount, since, whole=finished)
        _read_letters(folder, letters, recount)
        return _Comparison(past, recount, letters).findings()


def _look(folder: Path) -> Past | None:
    try:
        return look(folder)
    except ConfigError:
        return None


def _opened(folder: Path, name: str) -> BinaryIO:
    try:
        fd = os.open(folder / name, _READ)
    except OSError as error:
        raise ConfigError(f"{visible(str(folder / name))} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError(f"{visible(str(folder / name))} is no file")
    return os.fdopen(fd, "rb", buffering=1 << 20)


def _watched(file: BinaryIO, watch: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """Its lines; `watch` is told every so many of them."""
    total = os.fstat(file.fileno()).st_size
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        yield line
        if watch is not None and number % LOOK_LINES == 0:
            watch(file.tell(), total)


def _read_results(lines: Iterable[bytes], recount: Recount, since: float, *, whole: bool) -> None:
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n") and not whole:
            return  # the torn end of a run that was killed: the next session cuts it off
        try:
            recount.add(Result.from_line(line), number, since)
        except (ValueError, OverflowError) as error:
            recount.faults.add("lines that are no results", f"line {number:,} ({visible(str(error))[:80]})")


def _read_letters(folder: Path, letters: Letters, recount: Recount) -> None:
    try:
        file = _opened(folder, DEAD_LETTER)
    except ConfigError:
        if recount.failed:
            recount.faults.add(f"{DEAD_LETTER} is missing")
        return
    with file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
            try:
                said = orjson.loads(line)
                letters.add(said.get(NOTE) if isinstance(said, dict) else None)
            except (ValueError, OverflowError):
                recount.faults.add(f"lines of {DEAD_LETTER} that are none of this run's", f"line {number:,}")


class _Comparison:
    """The lines on one side, what the run says of itself on the other."""

    def __init__(self, past: Past | None, recount: Recount, letters: Letters) -> None:
        self._past = past
        self._recount = recount
        self._letters = letters
        self._wrong: list[str] = []
        self._notes: list[str] = []
        self._summary: Summary | None = None
        if past is not None and (past.finished or not past.from_checkpoint):
            self._summary = past.told.summary

    def findings(self) -> Findings:
        """Compare."""
        self._unique()
        self._compare_letters()
        self._wrong += self._recount.faults.told()
        rate = self._past.told.summary["rate"] if self._past is not None else None
        busiest = self._recount.busiest(rate["per"] if rate is not None else 60.0)
        lower = self._recount.untold > 0
        if self._summary is None:
            self._notes.append("the run is not finished and has no summary yet: there is nothing to compare with")
            lower = True
        else:
            self._compare_counts(self._summary)
            self._compare_requests(self._summary)
            self._compare_causes(self._summary)
            lower |= self._compare_window(self._summary, busiest)
        if rate is not None and busiest.least > (limit := self._limit(rate)):
            self._wrong.append(f"{busiest.least:,} requests within {rate['per']:g} s, the limit was {limit:,}")
        return Findings(
            {status.value: self._recount.statuses[status] for status in Status},
            self._recount.tries,
            self._recount.retries,
            self._letters.count,
            busiest,
            rate["limit"] if rate is not None else None,
            rate["per"] if rate is not None else 60.0,
            lower,
            self._summary is not None,
            tuple(self._wrong),
            tuple(self._notes),
        )

    def _limit(self, rate: RateUsed) -> int:
        """The highest limit that a session had, in windows of the same length."""
        rates = self._past.told.timeline.rates if self._past is not None else []
        return max([rate["limit"], *(limit for _, limit, per in rates if per == rate["per"])])

    def _unique(self) -> None:
        for source, offset, item, count in self._recount.twice():
            what = f"{visible(source)}, offset {offset:,}" + (f", item {item}" if item else "")
            self._recount.faults.add("rows with more than one result", f"{what}: {count}")

    def _compare_letters(self) -> None:
        if not self._finished:  # it may end in letters whose results were not written any more
            if self._letters.count < self._recount.failed:
                self._wrong.append(
                    f"{self._recount.failed:,} rows failed, there are {self._letters.count:,} dead letters"
                )
            return
        for source, line, status, lacks in self._recount.letters(self._letters):
            kind = "failed rows without a dead letter" if lacks else "dead letters of rows that did not fail so"
            self._recount.faults.add(
                f"{kind} (was {DEAD_LETTER} edited?)", f"{visible(source)}, line {line:,}, {status}"
            )

    @property
    def _finished(self) -> bool:
        return self._past is not None and self._past.finished

    def _compare_counts(self, summary: Summary) -> None:
        counts = summary["counts"]
        for status in Status:
            self._same(f"{status.value} rows", self._recount.statuses[status], counts[status])
        self._same("rows", self._recount.lines, counts["read"] - counts["unsettled"])
        if self._finished and counts["unsettled"]:
            self._wrong.append(f"the run is finished, and {counts['unsettled']:,} rows have no result")
        if counts["read"] != sum(counts[status] for status in Status) + counts["unsettled"]:
            self._wrong.append("the counts of the summary do not add up")

    def _same(self, what: str, found: int, said: int) -> None:
        if found != said:
            self._wrong.append(f"{what}: {found:,} in the results, {said:,} in the summary")

    @property
    def _missing(self) -> int:
        """Requests whose rows have no result: they were on their way when a session ended, and were sent again."""
        assert self._summary is not None  # noqa: S101  it is asked for only with one
        return self._summary["requests"] - self._recount.tries

    def _compare_requests(self, summary: Summary) -> None:
        if self._missing < 0 or (self._complete and self._missing):
            self._same("requests", self._recount.tries, summary["requests"])
        again = summary["retries"] - self._recount.retries
        if again < 0 or (self._complete and again) or again > self._missing >= 0:
            self._same("retries", self._recount.retries, summary["retries"])
        clocks = self._recount.clocks()
        if clocks > summary["sessions"]:
            self._same("sessions, by their clocks", clocks, summary["sessions"])
        if self._complete and not self._recount.untold:
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                found, said = self._recount.latency.percentile(share), summary["latency_ms"].get(name)
                if (None if found is None else round(found, 3)) != said:
                    self._wrong.append(f"latency, {name}: {found} ms in the results, {said} ms in the summary")

    @property
    def _complete(self) -> bool:
        """Whether every request must have left its trace: one session, which came to its end."""
        return self._finished and self._summary is not None and self._summary["sessions"] == 1

    def _compare_causes(self, summary: Summary) -> None:
        told = {(each["status"], each["cause"]): (each["count"], each["first_line"]) for each in summary["failures"]}
        found = {(it["status"], it["cause"]): (it["count"], it["first_line"]) for it in self._recount.causes.told()}
        for status, cause in dict.fromkeys([*found, *told]):
            here, there = found.get((status, cause)), told.get((status, cause))
            if here != there:
                name = f"failures, {status}: {visible(cause)[:100]}"
                self._wrong.append(f"{name}: {_cause(here)} in the results, {_cause(there)} in the summary")
        if sum(summary["counts"][status] for status in FAILED) != sum(count for count, _ in told.values()):
            self._wrong.append("the failures of the summary are not as many as its counts say")

    def _compare_window(self, summary: Summary, found: Busiest) -> bool:
        """Compare the busiest window; whether what was found is less than there may have been."""
        said, rate = summary["rate"]["busiest_window"]["count"], summary["rate"]
        lost = max(self._missing, 0) + self._recount.untold
        if "counted_since" in rate:
            self._notes.append(f"the busiest window was looked for since {moment(rate['counted_since'])} only")
        too_many = found.least > said and not ("counted_since" in rate and found.least <= self._limit(rate))
        if too_many or said > found.most + lost + self._before(summary):
            self._wrong.append(f"busiest window: {found.most:,} in the results, {said:,} in the summary")
        if not lost:
            return False
        self._notes.append(
            f"of {lost:,} requests nobody knows when they were sent (a session was ended before their rows settled, "
            "or a row had more than 20): what was found is the least that the busiest window held"
        )
        return True

    def _before(self, summary: Summary) -> int:
        """Requests of sessions before `counted_since` that the summary may have taken into its window."""
        return self._recount.attempts if "counted_since" in summary["rate"] else 0


def _cause(said: tuple[int, int] | None) -> str:
    return "none" if said is None else f"{said[0]:,} (first: line {said[1]:,})"
