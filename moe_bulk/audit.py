"""Hold a run's result lines against what its summary says of them, and name what does not add up."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import orjson

from moe_bulk.amounts import counted
from moe_bulk.archive import look
from moe_bulk.axis import moment
from moe_bulk.comparison import Comparison
from moe_bulk.errors import ConfigError
from moe_bulk.journal import DEAD_LETTER, RESULTS
from moe_bulk.outcome import Result, Status
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
    from moe_bulk.tally import Summary

LOOK_LINES = 1_000
"""So often it is told how far the reading is."""

_LINE = 1_000
"""Characters of a contradiction that are told: a summary may hold anything."""
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
    compared: tuple[str, ...]
    compared_with: str | None
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
            "compared_with": self.compared_with,
            "compared": list(self.compared),
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
        said = [f"Results: {sum(self.counts.values()):,} ({counts}), {counted(self.dead_letters, 'dead letter')}"]
        said.append(f"Requests: {self.requests:,} ({counted(self.retries, 'retry', 'retries')})")
        if self.busiest.at is not None:
            least = "at least " if self.lower_bound else ""
            limit = f"; the limit is {self.limit:,}" if self.limit is not None else ""
            began = moment(self.busiest.at)
            said.append(f"Busiest window: {least}{self.busiest.least:,} in {self.per:g} s, from {began} on{limit}")
        said += [f"Note: {note}" for note in self.notes]
        if self.hold:
            return [*said, "All of it holds." if self.compared else "Nothing contradicts so far."]
        return [
            *said,
            f"{counted(len(self.contradictions), 'contradiction')}:",
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
        letters = stack.enter_context(Letters(IN_MEMORY))
        recount = stack.enter_context(Recount(IN_MEMORY, _window(said)))
        since = said["rate"].get("counted_since") if said is not None else None
        since = since if isinstance(since, (int, float)) else 0.0
        _read_results(_watched(results, watch), recount, since, whole=past is not None and past.finished)
        _read_letters(folder, letters, recount)
        found = Comparison(past, recount, letters)
        return Findings(
            {status.value: recount.statuses[status] for status in Status},
            recount.tries,
            recount.retries,
            letters.count,
            found.busiest,
            found.rate["limit"] if found.rate is not None else None,
            found.rate["per"] if found.rate is not None else 60.0,
            found.lower_bound,
            tuple(found.compared),
            found.with_,
            tuple(visible(each[:_LINE]) for each in found.wrong),
            tuple(visible(each[:_LINE]) for each in found.notes),
        )


def _window(summary: Summary | None) -> tuple[float, float] | None:
    """From when to when the busiest window lasted, as the summary says."""
    if summary is None or (at := summary["rate"]["busiest_window"]["at"]) is None:
        return None
    return at, at + summary["rate"]["per"]


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
