"""One run into its folder: writes what settles, folds it into numbers, and knows when failures are too many."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

import anyio

from moe_bulk.errors import AGAIN, JournalError, TooManyFailures
from moe_bulk.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from moe_bulk.clock import Clock
    from moe_bulk.config import FailureLimit, Rate
    from moe_bulk.engine import Engine
    from moe_bulk.intake import Intake
    from moe_bulk.outcome import Attempt, Result
    from moe_bulk.rundir import RunFolder
    from moe_bulk.tally import Summary

SYNC_SECONDS = 1.0
"""How often what was written is made safe from a power cut."""


@cache
def version() -> str:
    """The package's own version; it is read from a file, once, while there is sure to be room to open one."""
    return metadata.version("moe-bulk")


class Run:
    """Everything about one run that is written down. It also watches the run's requests, for their number and times."""

    def __init__(self, folder: RunFolder, rate: Rate, clock: Clock, max_failures: FailureLimit | None) -> None:
        self.tally = Tally(rate.limit, rate.per, clock.zero)
        self._folder = folder
        self._clock = clock
        self._max_failures = max_failures
        self._journal = folder.journal()
        self.summary: Summary | None = None
        self._started_at = clock.epoch()
        self._synced = 0
        self._version = version()

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self._folder.path

    @property
    def moved_to(self) -> Path | None:
        """Where an earlier run in this folder went, if there was one."""
        return self._folder.moved_to

    def sent(self, at: float, *, again: bool) -> None:
        """A request leaves at boot-clock second `at`."""
        self.tally.sent(at)
        if again:
            self.tally.retried()

    def answered(self, attempt: Attempt) -> None:
        """It is over."""
        self.tally.answered(attempt.ms, ok=attempt.error is None)

    def record(self, batch: Sequence[Result]) -> None:
        """Write results as they settle, dead letters first; raises JournalError where the disk does not take them."""
        self._journal.record(batch)
        for result in batch:
            self.tally.settled(result)

    def too_many(self) -> TooManyFailures | None:
        """The error to stop with, once more rows have failed than allowed."""
        failed, settled = self.tally.failed_rows, self.tally.settled_rows
        if self._max_failures is None or not self._max_failures.reached(failed, settled):
            return None
        return TooManyFailures(
            f"{failed:,} of {settled:,} rows failed, more than --max-failures {self._max_failures} allows: "
            f"see {self._folder.dead_letter}, correct the cause, then {AGAIN}"
        )

    async def keep_synced(self, halt: Callable[[JournalError], None]) -> None:
        """Sync once a second, in a thread; `halt` is told what goes wrong, and ends the run."""
        while True:
            await anyio.sleep(SYNC_SECONDS)
            written = self._journal.results.written
            if written == self._synced:
                continue
            try:
                await anyio.to_thread.run_sync(self._journal.sync)
            except JournalError as error:
                halt(error)
                return
            self._synced = written

    def close(self, *, exit_code: int, pauses: int, settings: dict[str, object], stopped: str | None) -> Summary:
        """Make everything safe, write the summary and return it; `stopped` says why the run is not finished.

        Raises JournalError where the disk does not take it, unless the run was stopped by something else before. It
        blocks for some milliseconds, rather than that a cancellation finds it half done.
        """
        trouble = _trouble(self._journal.sync)
        self.summary = summary = self.tally.summary(
            started_at=self._started_at,
            ended_at=self._clock.epoch(),
            exit_code=exit_code,
            pauses=pauses,
            version=self._version,
            settings=settings,
            stopped=stopped,
        )
        if stopped is None and trouble is not None:
            _spoil(summary, trouble)
        unwritten = _trouble(lambda: self._folder.write_summary(summary))
        _trouble(self._journal.close)
        trouble = trouble or unwritten
        if stopped is None and trouble is not None:
            _spoil(summary, trouble)
            raise trouble
        return summary


def _trouble(work: Callable[[], None]) -> JournalError | None:
    try:
        work()
    except JournalError as error:
        return error
    return None


def _spoil(summary: Summary, error: JournalError) -> None:
    summary["exit_code"], summary["stopped"] = error.exit_code, str(error)


class RunView:
    """One run while it goes on, for those who show it; nothing here can be changed."""

    def __init__(self, run: Run, intake: Intake, engine: Engine, paused: Callable[[], bool]) -> None:
        self.tally = run.tally
        self.folder = run.folder
        self._run = run
        self._intake = intake
        self._engine = engine
        self._paused = paused

    @property
    def moved_to(self) -> Path | None:
        """Where an earlier run in this folder went, if there was one."""
        return self._run.moved_to

    @property
    def summary(self) -> Summary | None:
        """The summary, once the run has ended one way or the other."""
        return self._run.summary

    @property
    def warnings(self) -> list[str]:
        """What people should know about the input, so far."""
        return self._intake.warnings

    @property
    def bytes_read(self) -> tuple[int, int | None]:
        """Bytes of the input read so far and in all, where that is known."""
        return self._intake.progress

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return self._engine.in_flight

    @property
    def retrying(self) -> int:
        """Rows that wait to be tried again."""
        return self._engine.agenda.retrying

    @property
    def waits_for(self) -> str:
        """What keeps the run from going faster right now: `outage`, `pause`, or nothing but the pace."""
        if self._engine.outage:
            return "outage"
        return "pause" if self._paused() else ""
