"""One run into its folder: writes what settles, keeps what a later session needs, folds it all into numbers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio

from moe_bulk.amounts import size
from moe_bulk.checkpoint import Checkpoint
from moe_bulk.clock import boot_id
from moe_bulk.errors import AGAIN, JournalError, TooManyFailures
from moe_bulk.standing import version
from moe_bulk.superseding import STOPPED, supersede

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from moe_bulk.intake import Batch
    from moe_bulk.outcome import Attempt, Result
    from moe_bulk.record import Position
    from moe_bulk.rundir import RunFolder
    from moe_bulk.standing import Job, Standing
    from moe_bulk.tally import Summary, Tally

SYNC_SECONDS = 1.0
"""How often what was written is made safe from a power cut."""

MOST_RANGES = 500_000
"""Ranges of settled rows that a checkpoint tells: some 10 MB."""


class Run:
    """Everything about one run that is written down. It also watches the run's requests, for their number and times."""

    def __init__(self, folder: RunFolder, job: Job, standing: Standing) -> None:
        self._tally = standing.tally
        self._events: list[float | Attempt] = []
        """What `sent` and `answered` were told since the tally was last looked at, in the order of its happening."""
        self._loop_thread = threading.get_ident()
        self.summary: Summary | None = None
        self.warnings: list[str] = []
        self._folder = folder
        self._job = job
        self._standing = standing
        self._journal = standing.journal
        self._census = standing.census
        self._settled = standing.settled
        self._started_at = standing.started_at
        self._pauses_before = self.tally.pauses - job.pauses()
        self._settled_before, self._failed_before = self.tally.settled_rows, self.tally.failed_rows
        self._dead_letters: int | None = None
        """The length of the dead letters once they have been filled in: nothing is written behind them any more."""
        self.seconds_writing = 0.0
        """How long writing results took so far, while nothing else could go on."""
        self.settled_at: float | None = None
        """When this session last settled a row, epoch seconds."""
        self._synced = self._journal.results.written
        self._told = self._tally.requests
        """As many requests as there had been when it was saved."""
        self._saving = threading.Lock()
        self._ending = threading.Lock()
        self._closing = False
        self._version = version()

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self._folder.path

    @property
    def started_at(self) -> float:
        """When its first session began, epoch seconds."""
        return self._started_at

    @property
    def id(self) -> str:
        """What tells it from other runs, the same in all its sessions: twelve hexadecimal digits."""
        return self._job.run_id(self._started_at)

    @property
    def tally(self) -> Tally:
        """The run's numbers: up to this moment within the loop's thread, of a second ago at most in others."""
        if self._is_in_loop_thread:
            events, self._events = self._events, []
            self._tally.note(events)
        return self._tally

    @property
    def _is_in_loop_thread(self) -> bool:
        return threading.get_ident() == self._loop_thread

    @property
    def pauses(self) -> int:
        """How often everybody had to wait, in all sessions so far."""
        return self._pauses_before + self._job.pauses()

    @property
    def moved_to(self) -> Path | None:
        """Where an earlier run in this folder went, if there was one."""
        return self._folder.moved_to

    def sent(self, at: float, *, again: bool) -> None:
        """A request leaves at boot-clock second `at`."""
        if not again:
            self._events.append(at)
            return
        tally = self.tally
        tally.sent(at)
        tally.retried()
        tally.timeline.sent(at, again=True)

    def answered(self, *attempts: Attempt) -> None:
        """They are over."""
        self._events.extend(attempts)

    def judge(self, batch: Batch) -> Batch:
        """What rows that were read are from now on: unsent, where their user has too many devices.

        Raises JournalError where the disk does not take it; then none of them counts as read.
        """
        return self._census.judge(batch)

    def take_in(self, *positions: Position) -> None:
        """Rows were read that have no result yet."""
        self._tally.read(len(positions))
        self._settled.take_in(*positions)

    def skip(self, *positions: Position) -> None:
        """Reading came past rows that an earlier session settled."""
        self._settled.skip(*positions)

    def record(self, batch: Sequence[Result]) -> None:
        """Write results as they settle, dead letters first; raises JournalError where the disk does not take them."""
        begun = self._job.clock.now()
        self._journal.record(batch)
        self.seconds_writing += self._job.clock.now() - begun
        self.tally.settled(*batch)
        self._settled.settle(*[result.position for result in batch])
        self.settled_at = self._job.clock.epoch()

    def too_many(self) -> TooManyFailures | None:
        """The error to stop with, once more rows of this session have failed than allowed."""
        limit = self._job.max_failures
        if limit is None:
            return None
        failed = self._tally.failed_rows - self._failed_before
        settled = self._tally.settled_rows - self._settled_before
        if not limit.reached(failed, settled):
            return None
        return TooManyFailures(
            f"{failed:,} of {settled:,} rows failed, more than --max-failures {limit} allows: "
            f"see {self._folder.dead_letter}, correct the cause, then {AGAIN}"
        )

    # -- what a later session needs --------------------------------------------------------------------------------

    async def keep_synced(self, halt: Callable[[JournalError], None]) -> None:
        """Save once a second, in a thread; `halt` is told what goes wrong, and ends the run."""
        looked = self._job.clock.now()
        while True:
            await anyio.sleep(SYNC_SECONDS)
            before, looked = looked, self._job.clock.now()
            if why := self._job.waits_for():
                self.tally.timeline.waited(looked, looked - before, why)
            if not self._something_new():
                continue
            written, self._told = self._journal.results.written, self.tally.requests
            try:
                self._look_ahead()
                await anyio.to_thread.run_sync(self._save, self._census.snapshot(), self._checkpoint())
            except JournalError as error:
                halt(error)
                return
            self._synced = written

    def _something_new(self) -> bool:
        """Whether results were written, or requests were sent to users of whom the next session has to know."""
        if self._journal.results.written != self._synced:
            return True
        return self.tally.requests != self._told and bool(self._job.busy(self._job.clock.now(), self.tally.sessions))

    def save(self, *, finished: bool = False, final_dead_letter: int | None = None) -> None:
        """Make all that was written safe from a power cut, and note how far that is."""
        counted = self._census.snapshot()
        self._save(counted, self._checkpoint(finished=finished, final_dead_letter=final_dead_letter))

    def _checkpoint(
        self, *, finished: bool = False, final_dead_letter: int | None = None
    ) -> Callable[[], Checkpoint] | None:
        """What is so at this moment; telling it takes longer, and may be done in a thread. None where it is too much.

        That is so only after everything had to be read back; then the checkpoint that is there stays valid.
        """
        if self._is_in_loop_thread:  # else all rows are settled, and nothing is left to come
            self._job.catch_up()
        snapshot = self._settled.snapshot()
        if snapshot.size > MOST_RANGES:
            return None
        self.tally.pauses = self.pauses
        tally, sessions, at = self.tally.state(), self.tally.sessions, self._job.clock.now()
        busy = self._job.busy(at, sessions)
        results, dead_letters = self._journal.lengths
        if self._dead_letters is not None:
            dead_letters = self._dead_letters
        sources = self._job.intake.fingerprints
        return lambda: Checkpoint(
            settings=self._job.settings,
            sources=sources,
            place=snapshot.place,
            ranges=snapshot.ranges(),
            results=results,
            dead_letters=dead_letters,
            tally=tally,
            started_at=self._started_at,
            at=at,
            boot=boot_id(),
            sessions=sessions,
            finished=finished,
            final_dead_letter=final_dead_letter,
            busy=busy,
            also=dict(self._job.also),
        )

    def _save(self, save_census: Callable[[], None], told: Callable[[], Checkpoint] | None) -> None:
        with self._saving:
            self._journal.sync()
            save_census()
            if told is not None:
                self._folder.write_checkpoint(told().as_json())

    def _look_ahead(self) -> None:
        """Warn, once, where the results will not find room."""
        needed = self._still_to_write()
        self._journal.expect(needed)
        free = self._folder.free_bytes()
        if needed > free and not self.warnings:
            self.warnings.append(
                f"the results will need about {size(needed)} more in {self.folder}, and {size(free)} are free: make "
                "room there. When the disk is full the run stops, and goes on when there is room"
            )

    def _still_to_write(self) -> int:
        """Bytes of results that are to come, by what a row took so far."""
        settled, rows = self.tally.settled_rows, self._job.intake.rows_expected
        if not settled or rows is None:
            return 0
        written = sum(self._journal.lengths) + self._census.written
        return int(written / settled * max(0.0, rows - settled))

    # -- its end -----------------------------------------------------------------------------------------------------

    async def complete(self, stopping: Callable[[], bool]) -> bool:
        """All rows are settled: note in the dead letters which later rows made them obsolete.

        False where it was stopped before: then the run is not finished, and the next session does it.
        """
        if not self.tally.failed_rows:
            return True
        # a cancellation does not wait for it: `close` does, and hurries it
        return await anyio.to_thread.run_sync(self._fill_in, stopping, abandon_on_cancel=True)

    def _fill_in(self, stopping: Callable[[], bool]) -> bool:
        with self._ending:
            if self._closing:
                return False
            self.save()
            folder = self._folder
            length = supersede(
                folder.results,
                folder.dead_letter,
                self._job.intake.labels,
                lambda: self._closing or stopping(),
                dir_fd=folder.fd,
            )
            if length == STOPPED:
                return False
            if length is not None:
                self.save(final_dead_letter=length)
                folder.replace_dead_letter()
                self._dead_letters = length
                self.save()
            return True

    def close(self, *, exit_code: int, stopped: str | None = None, service_said: str | None = None) -> Summary:
        """Make everything safe, write the summary and return it; `stopped` says why the run is not finished.

        `service_said` is what MoEngage said of it.

        Raises JournalError where the disk does not take it, unless the run ended in an error before (an `exit_code`
        above 1). It blocks for some milliseconds, rather than that a cancellation finds it half done.
        """
        self._closing = True
        with self._ending:
            trouble = _trouble(self.save)
            self.summary = summary = self._sum_up(exit_code, stopped)
            if service_said is not None:
                summary["service_said"] = service_said
            unwritten = _trouble(lambda: self._folder.write_summary(summary))
            trouble = trouble or unwritten
            if stopped is None and trouble is None:
                self._report(summary)  # before it counts as finished: a finished run has its page
                trouble = _trouble(self._finish)
            if exit_code > 1:
                trouble = None  # what it ended in is what people need to know
            if trouble is not None:
                summary["exit_code"], summary["stopped"] = trouble.exit_code, str(trouble)
                _trouble(lambda: self._folder.write_summary(summary))
            if "stopped" in summary:
                self._report(summary)
            _trouble(self._standing.close)
        if trouble is not None:
            raise trouble
        return summary

    def _report(self, summary: Summary) -> None:
        """Write the page; a run that is over does not fail because of it."""
        try:  # of a run of days, the package may have been replaced meanwhile: then not even the import works
            from moe_bulk.report import Told, document  # noqa: PLC0415  not before it is needed

            page = document(Told(summary, self.tally.timeline, self.tally.latency, self.folder))
            self._folder.write_report(page.encode())
        except Exception as error:  # noqa: BLE001  whatever it is: all else is written
            self.warnings.append(f"report.html could not be written ({type(error).__name__}): try moe-bulk report")

    def _finish(self) -> None:
        # in this order: every row is settled, so what would go on without the census needs none
        self._folder.remove_census()
        self.save(finished=True)

    def _sum_up(self, exit_code: int, stopped: str | None) -> Summary:
        summary = self.tally.summary(
            started_at=self._started_at,
            ended_at=self._job.clock.epoch(),
            exit_code=exit_code,
            version=self._version,
            settings={**self._job.settings, **self._job.also},
            stopped=stopped,
        )
        summary["sources"] = len(self._job.intake.labels)
        return summary


def _trouble(work: Callable[[], None]) -> JournalError | None:
    try:
        work()
    except JournalError as error:
        return error
    return None
