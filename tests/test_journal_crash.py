"""Journal, dead letter and checkpoint on a disk that forgets: whatever happens when, nothing is lost and nothing twice.

A state machine settles rows, syncs, is killed, loses its power, runs out of space and recovers, in any order. The disk
is a real folder; at a power cut its files are rewritten to a random state that a file system may leave behind.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.deadletter import letter
from moe_bulk.errors import JournalError
from moe_bulk.journal import AppendOnlyFile, Journal
from moe_bulk.outcome import FAILED, Attempt, Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.recovery import ReadBack
from moe_bulk.settled import Place, Settled
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = ("a.csv", "b.csv")
ROWS = tuple(Position(source, number + 2, number * 10) for source in SOURCES for number in range(8))
STATUSES = st.sampled_from([Status.ACCEPTED, Status.REJECTED, Status.EXHAUSTED, Status.INVALID])
RESULTS, LETTERS, CHECKPOINT = "results.ndjson", "dead-letter.ndjson", "checkpoint.json"


def settled_as(position: Position, status: Status) -> Result:
    """Give the last word on a row."""
    row = Row(position, None if status is Status.INVALID else {"a": position.line})
    return Result(position, status, row, reason="r" * 40, attempts=(Attempt(1.0, 1.0, 1.0, 200),), tries=1)


class Stop(BaseException):
    """The process ends here, between two instructions."""


class Disk:
    """A folder, and what of it a power cut leaves: the bytes that were synced, the names that the folder's sync saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fd = os.open(folder, os.O_RDONLY)
        self.stop_after: int | None = None
        self._safe: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        # an inode that is held open is not given to another file
        self._pins: list[int] = []

    def _entries(self) -> dict[str, int]:
        return {each.name: each.stat().st_ino for each in self.folder.iterdir()}

    def sync(self, fd: int) -> None:
        """Stand in for `sync_to_disk`; the process may end before it, or after it."""
        self._step()
        inode = os.fstat(fd).st_ino
        name = next(name for name, number in self._entries().items() if number == inode)
        if inode not in self._safe:
            self._pins.append(os.open(self.folder / name, os.O_RDONLY))
        self._safe[inode] = (self.folder / name).read_bytes()
        self._step()

    def sync_names(self) -> None:
        """Stand in for the folder's sync."""
        self._step()
        self._names = self._entries()
        self._step()

    def _step(self) -> None:
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                raise Stop

    def cut(self, data: st.DataObject) -> None:
        """Lose the power: put a state in place that the disk may have kept."""
        now = self._entries()
        kept: dict[str, bytes] = {}
        for name in sorted({*now, *self._names}):
            versions = [table.get(name) for table in (self._names, now)]
            chosen = data.draw(st.sampled_from(versions), f"{name}: which")
            if chosen is not None:
                safe = self._safe.get(chosen, b"")
                current = (self.folder / name).read_bytes() if now.get(name) == chosen else safe
                kept[name] = _torn(safe, current, data)
        self.forget()
        for name, content in kept.items():
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / name).write_bytes(content)
        for name in set(now) - set(kept):
            (self.folder / name).unlink()
        self.all_safe()

    def all_safe(self) -> None:
        """What is there now is there for good."""
        self.forget()
        with mock.patch.object(self, "stop_after", None):
            for name in self._entries():
                fd = os.open(self.folder / name, os.O_RDONLY)
                self.sync(fd)
                os.close(fd)
            self.sync_names()

    def forget(self) -> None:
        """Know of no file any more."""
        for pin in self._pins:
            os.close(pin)
        self._pins.clear()
        self._safe.clear()


def _torn(safe: bytes, current: bytes, data: st.DataObject) -> bytes:
    """What may be left of a file: its safe bytes, and of those behind any pages, zeros for others, up to any length."""
    if current == safe or (not current.startswith(safe) and data.draw(st.booleans(), "the old bytes")):
        return safe
    differing = (at for at, (old, new) in enumerate(zip(safe, current, strict=False)) if old != new)
    common = next(differing, min(len(safe), len(current)))
    length = data.draw(st.integers(common, len(current)), "length")
    page = data.draw(st.sampled_from([1_000_000, 256, 64, 7]), "page")
    left = bytearray(current[:length])
    for start in range(common // page * page, length, page):
        if data.draw(st.booleans(), "page lost"):
            lost = slice(max(start, common), min(start + page, length))
            left[lost] = bytes(lost.stop - lost.start)
    return bytes(left)


class Narrow(FileIO):
    """A file on a disk that may become full."""

    room: int | None = None

    def write(self, piece: object, /) -> int:
        """Write what there is room for."""
        taken = bytes(memoryview(piece))[: self.room]  # type: ignore[arg-type]  # FileIO takes buffers
        if self.room is not None:
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(taken)
        return super().write(taken)


class Session:
    """One process: what it knows and holds open."""

    def __init__(self, disk: Disk, checkpoint: Checkpoint, settled: Settled, lengths: tuple[int, int]) -> None:
        self.settled = settled
        self.checkpoint = checkpoint
        self.counts: Counter[str] = Counter({name: int(str(count)) for name, count in checkpoint.tally.items()})
        self.under_way: list[Position] = []
        self.captured: Checkpoint | None = None
        begin = settled.begin
        places = {each: Place(SOURCES.index(each.source), each.line, each.offset) for each in ROWS}
        self.unread = [each for each in ROWS if (places[each].source, places[each].offset) >= (begin[0], begin[2])]
        self.journal = Journal(*(_narrow(disk, name, at) for name, at in zip((RESULTS, LETTERS), lengths, strict=True)))

    def read(self) -> None:
        """Take the next row in, or skip it."""
        position = self.unread.pop(0)
        if position in self.settled:
            self.settled.skip(position)
        else:
            self.settled.take_in(position)
            self.under_way.append(position)

    def record(self, batch: list[Result]) -> None:
        """Write results."""
        self.journal.record(batch)
        for result in batch:
            self.settled.settle(result.position)
            self.under_way.remove(result.position)
            self.counts[result.status.value] += 1

    def capture(self, **changes: object) -> Checkpoint:
        """Give the checkpoint of this moment."""
        snapshot = self.settled.snapshot()
        results, letters = self.journal.lengths
        return Checkpoint(
            settings={},
            sources=(),
            place=snapshot.place,
            ranges=snapshot.ranges(),
            results=results,
            dead_letters=letters,
            tally=dict(self.counts),
            started_at=1.0,
            at=1.0,
            boot=None,
            final_dead_letter=changes.get("final"),  # type: ignore[arg-type]  # a length or nothing
        )


def _narrow(disk: Disk, name: str, at: int) -> AppendOnlyFile:
    file = AppendOnlyFile.reopen(disk.folder / name, at, dir_fd=disk.fd)
    plain, file._file = file._file, Narrow(os.dup(file._file.fileno()), "a")
    plain.close()
    return file


class Crashes(RuleBasedStateMachine):
    """`promised` holds the rows that no crash may take away any more, `whole` those that a kill may not."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.disk = Disk(Path(self.home.name))
        self.patches = [mock.patch(f"moe_bulk.{room}.sync_to_disk", self.disk.sync) for room in ("journal", "recovery")]
        for each in self.patches:
            each.start()
        for name in (RESULTS, LETTERS):
            AppendOnlyFile.create(self.disk.folder / name, dir_fd=self.disk.fd).close()
        first = Checkpoint({}, (), Place(0, 1, 0), {}, 0, 0, {}, 1.0, 1.0, None)
        self.put(CHECKPOINT, first.as_json())
        self.disk.all_safe()
        self.session: Session | None = Session(self.disk, first, Settled(SOURCES), (0, 0))
        self.promised: dict[Position, Status] = {}
        self.whole: dict[Position, Status] = {}

    def put(self, name: str, content: bytes) -> None:
        """Replace a file as the run folder does."""
        part = self.disk.folder / f"{name}.part"
        part.unlink(missing_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            self.disk.sync(file.fileno())
        part.rename(self.disk.folder / name)
        self.disk.sync_names()

    @property
    def running(self) -> Session:
        """The process that is there."""
        assert self.session is not None
        return self.session

    def end(self) -> None:
        """End the process; its files are closed as the system does it."""
        if self.session is not None:
            self.session.journal.close()
            self.session = None

    @contextmanager
    def perhaps_ending(self, data: st.DataObject) -> Iterator[None]:
        """Within it the process may end before or after any sync, by a kill or for want of power."""
        self.disk.stop_after = data.draw(st.sampled_from([None] * 8 + list(range(9))), "ends at")
        try:
            yield
        except Stop:
            self.disk.stop_after = None
            self.end()
            if data.draw(st.booleans(), "power"):
                self.lose_power(data)
        finally:
            self.disk.stop_after = None

    def lose_power(self, data: st.DataObject) -> None:
        """What was promised is there, nothing else need be."""
        self.end()
        self.disk.cut(data)
        self.whole = dict(self.promised)

    @precondition(lambda self: self.session is not None and self.session.unread)
    @rule(data=st.data(), count=st.integers(1, 6))
    def take_in(self, data: st.DataObject, count: int) -> None:
        """Rows are read, and some settle."""
        for _ in range(min(count, len(self.running.unread))):
            self.running.read()
        if self.running.under_way:
            self.settle_some(data)

    def batch(self, data: st.DataObject) -> list[Result]:
        """Draw what settles now: some of the rows under way, in any order."""
        chosen = data.draw(st.lists(st.sampled_from(self.running.under_way), min_size=1, max_size=4, unique=True))
        return [settled_as(each, data.draw(STATUSES)) for each in chosen]

    @precondition(lambda self: self.session is not None and self.session.under_way)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Results are written."""
        self.settle_some(data)

    def settle_some(self, data: st.DataObject) -> None:
        """Write a batch of results."""
        batch = self.batch(data)
        self.running.record(batch)
        self.whole |= {each.position: each.status for each in batch}

    def full_disk(self, data: st.DataObject) -> None:
        """One of the files takes no more; what was written before is there, and no checkpoint speaks of the rest."""
        journal = self.running.journal
        file = data.draw(st.sampled_from([journal.dead_letters, journal.results]), "file")._file
        assert isinstance(file, Narrow)
        file.room = data.draw(st.integers(0, 900), "room")
        batch = self.batch(data)
        with suppress(JournalError):
            self.running.record(batch)
            self.whole |= {each.position: each.status for each in batch}
        results, letters = journal.lengths
        self.end()
        assert len(self.whole) == _whole_lines(self.disk.folder / RESULTS, results)
        assert sum(each in FAILED for each in self.whole.values()) == _whole_lines(self.disk.folder / LETTERS, letters)

    def kill_while_writing(self, data: st.DataObject) -> None:
        """A kill leaves any beginning of what a batch writes: dead letters first, then results."""
        batch = self.batch(data)
        lines = [each.line() for each in batch]
        letters = b"".join(letter(each) for each in batch if each.failed)
        most = len(letters) + len(b"".join(lines))
        written = data.draw(st.integers(0, most) | st.sampled_from([most - 1, len(letters)]), "written")
        self.end()
        for name, piece in ((LETTERS, letters[:written]), (RESULTS, b"".join(lines)[: max(0, written - len(letters))])):
            with (self.disk.folder / name).open("ab") as file:
                file.write(piece)

    @precondition(lambda self: self.session is not None)
    @rule()
    def capture(self) -> None:
        """The state is captured; more may settle before it is safe."""
        self.running.captured = self.running.capture()

    @precondition(lambda self: self.session is not None)
    @rule(data=st.data())
    def write_checkpoint(self, data: st.DataObject) -> None:
        """What was captured, now or before, becomes the checkpoint after both files are safe."""
        captured, whole = self.running.captured or self.running.capture(), dict(self.whole)
        with self.perhaps_ending(data):
            self.running.journal.sync()
            self.promised = whole
            self.put(CHECKPOINT, captured.as_json())
            self.running.captured = None

    @precondition(lambda self: self.session is not None)
    @rule(data=st.data())
    def rewrite_dead_letters(self, data: st.DataObject) -> None:
        """The final dead letter takes the place of the one that grew, and the process ends."""
        letters = (self.disk.folder / LETTERS).read_bytes()
        final = letters.replace(b'"superseded_by":null', b'"superseded_by":12345')
        with self.perhaps_ending(data):
            self.running.journal.sync()
            self.promised = dict(self.whole)
            self.put(CHECKPOINT, self.running.capture(final=len(final)).as_json())
            self.put(LETTERS, final)
        self.end()

    @precondition(lambda self: self.session is not None)
    @rule(data=st.data(), how=st.sampled_from(["kill", "kill while writing", "full disk"]))
    def kill(self, data: st.DataObject, how: str) -> None:
        """The process ends; what the system took is there."""
        if how == "kill" or not self.running.under_way:
            self.end()
        elif how == "full disk":
            self.full_disk(data)
        else:
            self.kill_while_writing(data)

    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        """The machine ends."""
        self.lose_power(data)

    @precondition(lambda self: self.session is None)
    @rule(data=st.data(), name=st.sampled_from([RESULTS, LETTERS]))
    def somebody_truncates(self, data: st.DataObject, name: str) -> None:
        """A file is cut by other hands: what went with it may be sent again, the rest must stay in order."""
        if data.draw(st.integers(0, 3), "not now"):
            return
        path = self.disk.folder / name
        os.truncate(path, data.draw(st.integers(0, path.stat().st_size), "length"))
        self.disk.all_safe()
        self.promised, self.whole = {}, {}

    @precondition(lambda self: self.session is None)
    @rule(data=st.data())
    def recover(self, data: st.DataObject) -> None:
        """The same command again, which may be ended in its turn."""
        with self.perhaps_ending(data):
            self.go_on()

    def go_on(self) -> None:
        """Mend the files and begin where the last session ended."""
        (self.disk.folder / f"{CHECKPOINT}.part").unlink(missing_ok=True)
        found = Checkpoint.from_json((self.disk.folder / CHECKPOINT).read_bytes())
        reading = ReadBack(self.disk.fd, self.disk.folder, found, SOURCES)
        if reading.rebuilt:
            self.put(CHECKPOINT, reading.checkpoint.as_json())
        checkpoint = reading.checkpoint
        settled = Settled(SOURCES, checkpoint.ranges, checkpoint.place)
        behind = list(reading.results())
        settled.add_earlier(each.position for each in behind)
        mended = reading.mend()
        session = Session(self.disk, checkpoint, settled, (mended.results, mended.dead_letters))
        session.counts.update(each.status.value for each in behind)
        self.session = session
        self.whole = self.look(session)
        self.promised = dict(self.whole)

    def look(self, session: Session) -> dict[Position, Status]:
        """Check everything that must hold after a recovery, and give what is settled."""
        rows = self.rows()
        assert self.whole.items() <= rows.items(), "lost"
        assert set(rows) == {each for each in ROWS if each in session.settled}
        assert set(ROWS) - set(rows) <= set(session.unread)
        assert {name: count for name, count in session.counts.items() if count} == Counter(
            status.value for status in rows.values()
        )
        return rows

    def rows(self) -> dict[Position, Status]:
        """Read both files: each row once, each failure with its dead letter, each dead letter with its result."""
        results = [Result.from_line(line) for line in _lines(self.disk.folder / RESULTS)]
        notes = [orjson.loads(line)["_moe_bulk"] for line in _lines(self.disk.folder / LETTERS)]
        rows = {each.position: each.status for each in results}
        assert len(rows) == len(results), "twice"
        failed = [(*each.position[:2], each.status) for each in results if each.failed]
        assert failed == [(each["source"], each["line"], each["status"]) for each in notes]
        return rows

    def teardown(self) -> None:
        """Whatever happened: the next session brings the run to its end, with every row in it once."""
        try:
            if self.session is None:
                self.go_on()
            while self.running.unread:
                self.running.read()
            self.running.record([settled_as(each, Status.REJECTED) for each in self.running.under_way])
            assert sorted(ROWS) == sorted(self.rows())
        finally:
            self.end()
            for each in self.patches:
                each.stop()
            self.disk.forget()
            os.close(self.disk.fd)
            self.home.cleanup()


def _lines(path: Path) -> list[bytes]:
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return content.splitlines()


def _whole_lines(path: Path, length: int) -> int:
    content = path.read_bytes()[:length]
    assert content == b"" or content.endswith(b"\n")
    return content.count(b"\n")


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(
    max_examples=examples(60), stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
)
