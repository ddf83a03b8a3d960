"""Where a run stands when a session begins: at its beginning, where the one before stopped, or at its end."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib import metadata
from typing import TYPE_CHECKING, TypeVar, cast

import anyio

from moe_bulk.census import Census
from moe_bulk.clock import boot_id
from moe_bulk.deadletter import clean
from moe_bulk.errors import ConfigError, Interrupted, RunRefused
from moe_bulk.outcome import Status
from moe_bulk.recovery import ReadBack, recent_attempts
from moe_bulk.reuse import Action, Found, decide, differences
from moe_bulk.settled import Settled
from moe_bulk.tally import Tally, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from moe_bulk.checkpoint import Checkpoint
    from moe_bulk.clock import Clock
    from moe_bulk.config import FailureLimit, Rate
    from moe_bulk.intake import Intake
    from moe_bulk.journal import Journal
    from moe_bulk.outcome import Attempt
    from moe_bulk.record import Position
    from moe_bulk.recovery import Recovered
    from moe_bulk.reuse import IfChanged
    from moe_bulk.rundir import RunFolder
    from moe_bulk.tally import Summary
    from moe_bulk.timeline import Waiting

T = TypeVar("T")

_SENT = frozenset({Status.ACCEPTED, Status.REJECTED, Status.EXHAUSTED, Status.UNCHANGED})
"""The statuses of rows that went to MoEngage, or may have: in this run or, unchanged, before it."""

_SINCE_CHECKPOINT = 10.0
"""Seconds of results that may stand behind a checkpoint: the busiest window may end among them."""


@cache
def version() -> str:
    """The package's own version; it is read from a file, once, while there is sure to be room to open one."""
    return metadata.version("moe-bulk")


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is to do: deliver what, how fast, with which settings that matter, and when to stop."""

    intake: Intake
    rate: Rate
    clock: Clock
    settings: dict[str, object]
    max_failures: FailureLimit | None = None
    pauses: Callable[[], int] = lambda: 0
    """How often everybody had to wait so far, in this process."""
    busy: Callable[[float, int], list[list[int]]] = lambda _, __: []
    """The users who were sent much of late, for so many sessions' sake (`Users.busy`)."""
    waits_for: Callable[[], Waiting] = lambda: ""
    """Why everybody waits at this moment, if they do."""
    catch_up: Callable[[], None] = lambda: None
    """Have taken in what has come by this moment."""
    also: Mapping[str, object] = field(default_factory=dict)
    """Settings to tell of that do not matter: another session may have others."""

    def run_id(self, started_at: float) -> str:
        """What tells a run that began then from others, the same in all its sessions: twelve hexadecimal digits."""
        known = [started_at, self.settings, list(self.intake.labels)]
        return blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the rows, in forms that must agree: lines on disk, numbers, which ones, and whose devices."""

    journal: Journal
    census: Census
    tally: Tally
    settled: Settled
    started_at: float
    recent: list[Attempt] = field(default_factory=list)
    """What the session before sent last, on this one's clock: it still counts in the window.

    As many as 32 MB of result lines tell: whoever has counted them clears it.
    """
    busy: Sequence[Sequence[int]] = ()
    busy_until: float = 0.0
    """The users to whom it sent much, all of it before this moment of the boot clock."""

    def close(self) -> None:
        """Close the files."""
        try:
            self.journal.close()
        finally:
            self.census.close()


@dataclass(frozen=True, slots=True)
class Terms:
    """What to do about an earlier run: start over in any case, or where it was of other data; how many to keep."""

    fresh: bool = False
    if_changed: IfChanged = "refuse"
    keep_runs: int | None = None

    def __post_init__(self) -> None:
        if self.if_changed not in ("refuse", "fresh"):
            raise ConfigError(f"there is no way {self.if_changed!r} for changed data: use refuse or fresh")
        if self.keep_runs is not None and self.keep_runs < 0:
            raise ConfigError(f"the runs to keep are a number, at least 0; got {self.keep_runs}")


async def take_up(folder: RunFolder, job: Job, terms: Terms) -> Standing | Summary:
    """Where the run stands in this folder now; where it is finished and nothing is to be done, its summary.

    Raises RunRefused where the folder holds a run that is not this one: nothing in it was changed.
    """
    found = folder.found
    action = decide(await _seen(folder, job, terms), fresh=terms.fresh, if_changed=terms.if_changed)
    if found is not None and action is Action.DONE:
        return finished(folder, job, found)
    if found is not None and action is Action.GO_ON:
        mended = await _in_thread(lambda stopping: mend(folder, job, found, stopping))
        labels = [source.name for source in found.sources]
        job.intake.go_on(mended.settled, labels, mended.tally.settled_rows)
        journal, census = _files(folder, lambda: folder.go_on(mended.files.results, mended.files.dead_letters))
        return Standing(
            journal,
            census,
            mended.tally,
            mended.settled,
            found.started_at,
            recent=mended.recent,
            busy=found.busy,
            busy_until=_known_until(found, job.clock),
        )
    if action is Action.MOVE_ASIDE:
        folder.move_aside()
    standing = begin(folder, job)
    try:
        if (count := terms.keep_runs) is not None:
            await _in_thread(lambda _: folder.keep_runs(count))
    except BaseException:
        standing.close()
        raise
    return standing


def _known_until(found: Checkpoint, clock: Clock) -> float:
    """Until when the session before can have sent: until a moment after its checkpoint, or the machine's start."""
    if found.boot is None or boot_id() is None:
        return clock.now()
    return found.at + 1.0 if found.boot == boot_id() else 0.0


def finished(folder: RunFolder, job: Job, found: Checkpoint) -> Summary:
    """The summary of a finished run; it is made once more where it is missing or damaged.

    The dead letters are not looked at: people correct them where they are. Raises RunRefused where results are missing.
    """
    size, written_at = folder.results_on_disk()
    if size != found.results:
        raise RunRefused(
            f"{clean(str(folder.results))} has {size:,} bytes, and its run, which is finished, wrote "
            f"{found.results:,}: somebody changed it. Nothing was sent. To send everything again, add --fresh"
        )
    there = folder.read_summary()
    if there is not None and _is_whole(there):
        summary = cast("Summary", there)
    else:
        summary = _summary_again(_tally_of(folder, job, found), found, ended_at=written_at)
        folder.write_summary(summary)
    if not folder.has_report():
        _report_again(folder, summary, _tally_of(folder, job, found))
    return summary


def _is_whole(summary: dict[str, object]) -> bool:
    """Whether everything that is told of a finished run stands in it."""
    try:
        return bool(lines(cast("Summary", summary))) and summary["exit_code"] in (0, 1) and "stopped" not in summary
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def _summary_again(tally: Tally, found: Checkpoint, *, ended_at: float) -> Summary:
    summary = tally.summary(
        started_at=found.started_at,
        ended_at=ended_at,
        exit_code=1 if tally.failed_rows else 0,
        version=version(),
        settings={**found.settings, **found.also},
    )
    summary["sources"] = len(found.sources)
    return summary


def _report_again(folder: RunFolder, summary: Summary, tally: Tally) -> None:
    """Write the page that a kill or a disk kept from being written; a run that is over does not fail because of it."""
    from moe_bulk.report import Told, document  # noqa: PLC0415  not before it is needed

    with suppress(Exception):  # whatever it is: all else is there, and `moe-bulk report` says what is wrong
        folder.write_report(document(Told(summary, tally.timeline, tally.latency, folder.path)).encode())


def _tally_of(folder: RunFolder, job: Job, found: Checkpoint) -> Tally:
    try:
        tally = Tally.restored(found.tally, job.rate.limit, job.rate.per, job.clock.zero)
    except ValueError as error:
        raise _damaged(folder, error) from error
    tally.sessions = found.sessions
    return tally


async def _in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """Do what takes long beside the event loop, and come back only when it is over, cancelled or not.

    `work` is given what tells it to end early. The folder must not be let go of while it is at it, nor may it begin
    later.
    """
    busy, left = threading.Lock(), threading.Event()

    def alone() -> T:
        with busy:
            if left.is_set():
                raise Interrupted("nobody waits for it any more")
            return work(left.is_set)

    try:
        return await anyio.to_thread.run_sync(alone, abandon_on_cancel=True)
    finally:
        left.set()
        with busy:
            pass


async def _seen(folder: RunFolder, job: Job, terms: Terms) -> Found | None:
    found = folder.found
    if folder.state == "new":
        return None
    if found is None or terms.fresh:
        return Found(folder.path)
    changed = await job.intake.changed(found.sources, _settled(folder, found))
    return Found(folder.path, found.finished, changed, differences(found.settings, job.settings))


def _settled(folder: RunFolder, found: Checkpoint) -> Settled:
    labels = [source.name for source in found.sources]
    if ReadBack(folder.fd, folder.path, found, labels).rebuilt:
        return Settled(labels)  # what is settled will be read back from the files; until then nobody knows
    try:
        return Settled(labels, found.ranges, found.place)
    except ValueError as error:
        raise _damaged(folder, error) from error


def _damaged(folder: RunFolder, error: ValueError) -> RunRefused:
    where = clean(str(folder.path))
    return RunRefused(f"{where} holds a run that cannot go on: {clean(str(error))}. To start over: add --fresh")


def begin(folder: RunFolder, job: Job) -> Standing:
    """A new run in a folder that is ready for one."""
    clock, settled = job.clock, Settled(job.intake.labels)
    tally = Tally(job.rate.limit, job.rate.per, clock.zero)
    folder.begin()
    journal, census = _files(folder, folder.journal)
    return Standing(journal, census, tally, settled, clock.epoch())


def _files(folder: RunFolder, opened: Callable[[], Journal]) -> tuple[Journal, Census]:
    with ExitStack() as stack:
        journal = opened()
        stack.callback(journal.close)
        census = Census.open(folder.fd, folder.path)
        stack.pop_all()
    return journal, census


@dataclass(frozen=True, slots=True)
class Mended:
    """What the files of a run that stopped tell, and that they are whole now."""

    files: Recovered
    tally: Tally
    settled: Settled
    recent: list[Attempt]


def mend(folder: RunFolder, job: Job, found: Checkpoint, stopping: Callable[[], bool]) -> Mended:
    """Mend the files of the run that stopped, and tell what became of its rows; to be called in a thread."""
    labels = [source.name for source in found.sources]
    back = ReadBack(folder.fd, folder.path, found, labels)
    try:
        settled = Settled(labels, back.checkpoint.ranges, back.checkpoint.place)
        tally = _tally(job, back)
        with closing(Census.open(folder.fd, folder.path)) as census:
            settled.add_earlier(_positions(back, tally, census, stopping))
    except ValueError as error:
        raise _damaged(folder, error) from error
    if back.rebuilt:
        folder.write_checkpoint(back.checkpoint.as_json())
    whole = back.mend()
    attempts = recent_attempts(folder.fd, folder.path, whole.results, job.rate.per + _SINCE_CHECKPOINT)
    recent = _on_our_clock(attempts, job.clock, same=found.boot == boot_id() is not None)
    tally.before(each.at for each in recent)
    folder.remove_summary()
    return Mended(whole, tally, settled, recent)


def _tally(job: Job, back: ReadBack) -> Tally:
    if back.checkpoint.tally or back.checkpoint.results:
        tally = Tally.restored(back.checkpoint.tally, job.rate.limit, job.rate.per, job.clock.zero)
    else:
        tally = Tally(job.rate.limit, job.rate.per, job.clock.zero)
        tally.sessions = back.checkpoint.sessions + 1
    if back.rebuilt or (tally.requests and not tally.busiest.count):  # read back, or with windows of another length
        tally.counted_since = job.clock.epoch()
    return tally


def _positions(back: ReadBack, tally: Tally, census: Census, stopping: Callable[[], bool]) -> Iterator[Position]:
    since = back.checkpoint.at if back.checkpoint.tally else None
    for result in back.results():
        if stopping():
            raise Interrupted("it was left while its results were read back")
        tally.read_back(result, since)
        if result.status in _SENT:
            census.admits(result.customer_id or "", result.device_id or "")  # a power cut may have taken its end
        yield result.position


def _on_our_clock(attempts: Sequence[Attempt], clock: Clock, *, same: bool) -> list[Attempt]:
    """The attempts, sent at seconds of this session's boot clock; after a reboot only the wall clock can tell."""
    return [each if same else each._replace(at=each.sent - clock.zero) for each in attempts]
