"""Recovery: what is whole is read back, what is torn or alone is cut off, and what is not ours is left alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_bulk import recovery
from moe_bulk.checkpoint import Checkpoint
from moe_bulk.deadletter import letter
from moe_bulk.errors import JournalError, RunRefused
from moe_bulk.outcome import Attempt, Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.recovery import ReadBack, Recovered, recent_attempts
from moe_bulk.settled import OFFSETS, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SOURCE = "d.csv"
EMPTY = Checkpoint({}, (), Place(0, 1, 0), {}, 0, 0, {}, 1.0, 1.0, None)


def result(number: int, status: Status = Status.ACCEPTED, *, readable: bool = True, at: float = 0.0) -> Result:
    """Give the last word on a row, with one attempt that left at `at`."""
    place = Position(SOURCE, number + 2, number * 10)
    row = Row(place, {"a": number}) if readable else Row(place, None, "unclosed quote", b'"', 1)
    return Result(place, status, row, reason="r", attempts=(Attempt(at, at, 1.0, 200),), tries=1, settled_at=at)


MIXED = (
    result(0),
    result(1, Status.REJECTED),
    result(2, Status.INVALID, readable=False),
    result(3, Status.SKIPPED),
    result(4, Status.EXHAUSTED),
    result(5),
)


@dataclass
class Folder:
    """A run folder on disk, held open."""

    path: Path
    fd: int
    sources: Sequence[str] = field(default=(SOURCE,))

    def write(self, results: Sequence[Result], letters: Sequence[Result] | None = None) -> None:
        """Put both files there: the results, and the dead letters of them or of others."""
        (self.path / "results.ndjson").write_bytes(b"".join(each.line() for each in results))
        failed = [each for each in (results if letters is None else letters) if each.failed]
        (self.path / "dead-letter.ndjson").write_bytes(b"".join(map(letter, failed)))

    @property
    def results(self) -> bytes:
        """The bytes of the results."""
        return (self.path / "results.ndjson").read_bytes()

    @property
    def dead_letters(self) -> bytes:
        """The bytes of the dead letters."""
        return (self.path / "dead-letter.ndjson").read_bytes()

    def damage(self, name: str, change: bytes, at: int | None = None) -> None:
        """Write something behind a file's end, or into it."""
        with (self.path / f"{name}.ndjson").open("r+b") as file:
            file.seek(*((0, os.SEEK_END) if at is None else (at,)))
            file.write(change)

    def read_back(self, checkpoint: Checkpoint = EMPTY) -> ReadBack:
        """Begin to read back."""
        return ReadBack(self.fd, self.path, checkpoint, self.sources)

    def recover(self, checkpoint: Checkpoint = EMPTY) -> tuple[list[int], Recovered]:
        """Give the numbers of the rows that are read back, after the files were mended."""
        reading = self.read_back(checkpoint)
        numbers = [each.position.offset // 10 for each in reading.results()]
        recovered = reading.mend()
        assert (recovered.results, recovered.dead_letters) == (len(self.results), len(self.dead_letters))
        return numbers, recovered


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """An empty run folder."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield Folder(tmp_path, fd)
    os.close(fd)


def lengths(results: Sequence[Result]) -> Checkpoint:
    """Give the checkpoint that was written after these results."""
    letters = [len(letter(each)) for each in results if each.failed]
    return replace(EMPTY, results=sum(len(each.line()) for each in results), dead_letters=sum(letters))


def test_nothing_is_behind_the_checkpoint(folder: Folder) -> None:
    """An orderly stop leaves nothing to read back."""
    folder.write(MIXED)
    before = folder.results, folder.dead_letters
    numbers, recovered = folder.recover(lengths(MIXED))

    assert ([], False) == (numbers, recovered.rebuilt)
    assert before == (folder.results, folder.dead_letters)


def test_missing_files_are_empty(folder: Folder) -> None:
    """A run that was killed before its files were safe begins with empty ones, for its eyes only."""
    assert ([], Recovered(0, 0, rebuilt=False)) == folder.recover()
    assert 0o600 == (folder.path / "results.ndjson").stat().st_mode & 0o777


@pytest.mark.parametrize("known", range(len(MIXED) + 1))
def test_lines_behind_the_checkpoint_are_read_back(folder: Folder, known: int) -> None:
    """Whole lines stay and are told, from the checkpoint on."""
    folder.write(MIXED)
    numbers, recovered = folder.recover(lengths(MIXED[:known]))

    assert (list(range(known, len(MIXED))), False) == (numbers, recovered.rebuilt)


def test_rows_that_were_unreadable_are_known(folder: Folder) -> None:
    """The dead letter tells which rows could not be parsed; the numbers of a run need it."""
    folder.write(MIXED)
    unreadable = [each.row.fields is None for each in folder.read_back().results()]

    assert [False, False, True, False, False, False] == unreadable


def test_torn_lines_are_cut(folder: Folder) -> None:
    """A kill in the middle of a write costs the line that was being written, nothing else."""
    folder.write(MIXED)
    whole = folder.results, folder.dead_letters
    folder.damage("results", MIXED[0].line()[:30])
    folder.damage("dead-letter", letter(MIXED[1])[:-1])

    assert list(range(6)) == folder.recover()[0]
    assert whole == (folder.results, folder.dead_letters)


@pytest.mark.parametrize("name", ["results", "dead-letter"])
def test_line_that_lacks_only_its_line_feed_is_cut(folder: Folder, name: str) -> None:
    """Whole JSON, but the next line would be appended to it."""
    folder.write(MIXED[:2])
    path = folder.path / f"{name}.ndjson"
    os.truncate(path, path.stat().st_size - 1)

    assert [0] == folder.recover()[0]
    assert b"" == folder.dead_letters


def test_dead_letters_without_result_are_cut(folder: Folder) -> None:
    """Written before their results, which never were: their rows will be sent again."""
    folder.write(MIXED[:4], MIXED)

    assert [0, 1, 2, 3] == folder.recover()[0]
    assert 2 == folder.dead_letters.count(b"\n")


def test_results_without_dead_letter_are_cut(folder: Folder) -> None:
    """After a power cut the dead letters may be shorter than they were: all from the first failure without one goes."""
    folder.write(MIXED, MIXED[:4])

    assert [0, 1, 2, 3] == folder.recover()[0]
    assert 4 == folder.results.count(b"\n")


def bad_lines() -> Iterator[bytes]:
    """Give lines that cannot be results of this run."""
    form = orjson.loads(result(9).line())
    for change in (
        {"format": 2},
        {"source": "other.csv"},
        {"status": "lost"},
        {"line": 0},
        {"offset": -1},
        {"offset": OFFSETS},
        {"item": 65_536},
    ):
        yield orjson.dumps(form | change) + b"\n"
    yield bytes(300) + b"\n"
    yield b"\n"
    yield b"[1]\n"
    yield result(9, Status.REJECTED).line()


@pytest.mark.parametrize("line", list(bad_lines()))
def test_all_from_a_line_that_is_not_ours_is_cut(folder: Folder, line: bytes) -> None:
    """What follows it cannot be trusted: its rows are sent again."""
    folder.write(MIXED[:3])
    folder.damage("results", line + MIXED[3].line())

    assert [0, 1, 2] == folder.recover()[0]
    assert 3 == folder.results.count(b"\n")


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"_moe_bulk":7}\n',
        b'{"a":',
        letter(result(1, Status.EXHAUSTED)),
        letter(result(2, Status.REJECTED)),
        letter(result(1, Status.REJECTED)._replace(position=Position("other.csv", 3, 10))),
        letter(result(1, Status.REJECTED)._replace(position=Position(SOURCE, 3, 10, 1))),
        letter(result(1, Status.REJECTED)).replace(b'"format":1', b'"format":2'),
    ],
)
def test_a_dead_letter_belongs_to_its_result(folder: Folder, bad: bytes) -> None:
    """One that is torn, or of another row, is none: the result goes with it."""
    folder.write(MIXED[:2])
    (folder.path / "dead-letter.ndjson").write_bytes(bad)

    assert [0] == folder.recover()[0]
    assert b"" == folder.dead_letters


def test_line_without_end_is_torn(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the zeros are that a power cut left, they are not all read into memory."""
    monkeypatch.setattr(recovery, "LONGEST_LINE", 5_000)
    folder.write(MIXED[:1])
    folder.damage("results", bytes(20_000) + b"\n")

    assert [0] == folder.recover()[0]


@pytest.mark.parametrize("name", ["results", "dead-letter"])
@pytest.mark.parametrize("how", ["shorter", "no line feed", "missing"])
def test_files_that_contradict_the_checkpoint_are_read_from_their_beginning(
    folder: Folder, name: str, how: str
) -> None:
    """The journal is the truth: what is there counts, all of it anew, from an empty checkpoint on."""
    folder.write(MIXED)
    checkpoint = replace(lengths(MIXED), ranges={SOURCE: [(0, 9)]}, tally={"requests": 9}, place=Place(0, 9, 9))
    file = folder.path / f"{name}.ndjson"
    if how == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
        folder.damage(name, b"x" if how == "no line feed" else b"")
    reading = folder.read_back(checkpoint)
    expected = {"results": 5, "dead-letter": 4}[name]
    if how == "missing":
        expected = {"results": 0, "dead-letter": 1}[name]

    assert (True, checkpoint.emptied()) == (reading.rebuilt, reading.checkpoint)
    assert list(range(expected)) == [each.position.offset // 10 for each in reading.results()]
    assert reading.mend().rebuilt
    assert (expected, False) == (folder.results.count(b"\n"), folder.read_back(reading.checkpoint).rebuilt)


@pytest.mark.parametrize("renamed", [False, True])
def test_final_dead_letter_is_whole_before_and_after_it_took_its_place(folder: Folder, *, renamed: bool) -> None:
    """A kill around the renaming leaves either, and neither is cut."""
    folder.write(MIXED)
    checkpoint = replace(lengths(MIXED), final_dead_letter=8)
    if renamed:
        (folder.path / "dead-letter.ndjson").write_bytes(b"1234567\n")
    before = folder.dead_letters
    numbers, recovered = folder.recover(checkpoint)

    assert ([], False, before) == (numbers, recovered.rebuilt, folder.dead_letters)


def test_final_dead_letter_of_another_length_is_read_back(folder: Folder) -> None:
    """Whatever it is, it is not what was written last."""
    folder.write(MIXED)
    folder.damage("dead-letter", b"x")
    numbers, recovered = folder.recover(replace(lengths(MIXED), final_dead_letter=8))

    assert (list(range(6)), True) == (numbers, recovered.rebuilt)


def test_mending_waits_until_all_was_read_back(folder: Folder) -> None:
    """Nothing is cut that nobody has looked at."""
    folder.write(MIXED)
    reading = folder.read_back()
    next(reading.results())

    with pytest.raises(RuntimeError, match="go through the results"):
        reading.mend()


@pytest.mark.parametrize("name", ["results", "dead-letter"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused(folder: Folder, name: str, kind: str) -> None:
    """Links are not followed, pipes not waited for."""
    path = folder.path / f"{name}.ndjson"
    (folder.path / "target").write_bytes(b"precious")
    if kind == "link":
        path.symlink_to(folder.path / "target")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises(RunRefused, match=f"{name}.ndjson is no plain file of yours"):
        folder.read_back()
    assert b"precious" == (folder.path / "target").read_bytes()


def test_a_file_of_another_user_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else put there is not taken for ours."""
    folder.write(MIXED)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)

    with pytest.raises(RunRefused, match="no plain file of yours"):
        folder.read_back()


def test_a_disk_that_refuses_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system comes with the folder and a way out."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(JournalError, match=r"Permission denied\. Make it writable"):
        folder.read_back()


def test_name_of_a_source_that_is_no_unicode(folder: Folder) -> None:
    """The file spells it out; its rows are still ours."""
    folder.sources = ("\udcff.csv",)
    place = Position("\\udcff.csv", 2, 0)
    folder.write([result(0, Status.REJECTED)._replace(position=place)])

    assert [0] == folder.recover()[0]


def test_recovering_twice_changes_nothing_more(folder: Folder) -> None:
    """A kill while the files are mended does no harm."""
    folder.write(MIXED, MIXED[:4])
    first = folder.recover()
    files = folder.results, folder.dead_letters

    assert (first, files) == (folder.recover(), (folder.results, folder.dead_letters))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(list(Status)), max_size=6), st.data())
def test_whatever_is_damaged_what_stays_is_whole(folder: Folder, statuses: list[Status], data: st.DataObject) -> None:
    """Any bytes in any place behind the checkpoint: what stays is a beginning of what was, each with its letter."""
    rows = [result(number, status) for number, status in enumerate(statuses)]
    known = data.draw(st.integers(0, len(rows)), "known")
    folder.write(rows)
    checkpoint = lengths(rows[:known])
    for name, least in (("results", checkpoint.results), ("dead-letter", checkpoint.dead_letters)):
        size = len((folder.path / f"{name}.ndjson").read_bytes())
        at = data.draw(st.integers(least, size), f"{name} at")
        folder.damage(name, data.draw(st.binary(max_size=9) | st.integers(0, 900).map(bytes), "bytes"), at)
        os.truncate(folder.path / f"{name}.ndjson", data.draw(st.integers(least, size + 9), "length"))
    numbers, _ = folder.recover(checkpoint)
    kept = rows[: known + len(numbers)]

    assert list(range(known, len(kept))) == numbers
    for found, line in zip(folder.results.splitlines(), kept, strict=True):
        assert line.position == Result.from_line(found).position
    failed = [each.position.line for each in kept if each.failed]
    assert failed == [orjson.loads(each)["_moe_bulk"]["line"] for each in folder.dead_letters.splitlines()]


def test_recent_attempts_are_those_of_the_last_seconds(folder: Folder) -> None:
    """A window that spans a restart is counted whole: what left shortly before is known."""
    folder.write([result(number, at=float(number)) for number in range(100)])
    size = len(folder.results)
    last = len(result(99, at=99.0).line())

    def recent(upto: int, seconds: float) -> list[float]:
        return sorted(each.at for each in recent_attempts(folder.fd, folder.path, upto, seconds))

    assert [float(number) for number in range(89, 100)] == recent(size, 10.0)
    assert [float(number) for number in range(88, 99)] == recent(size - last, 10.0)
    assert 100 == len(recent(size, 1_000.0))
    assert [] == recent(0, 10.0)


def test_recent_attempts_without_results(folder: Folder) -> None:
    """Nothing is known where nothing is."""
    assert [] == recent_attempts(folder.fd, folder.path, 0, 60.0)


def test_recent_attempts_end_at_what_is_no_result(folder: Folder) -> None:
    """Behind a line that cannot be read nothing is looked for."""
    folder.write(MIXED[:2])
    folder.damage("results", b"{}\n" + result(7).line())

    assert 1 == len(recent_attempts(folder.fd, folder.path, len(folder.results), 60.0))


@pytest.mark.parametrize("block", [1, 7, 300, 1_000, 100_000])
def test_recent_attempts_are_read_in_blocks(folder: Folder, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block begins, each line is told once; what begins too far back is not told."""
    monkeypatch.setattr(recovery, "_BLOCK", block)
    folder.write([result(number, at=1.0) for number in range(10)])
    size = len(folder.results)
    whole = len(recent_attempts(folder.fd, folder.path, size, 60.0))
    monkeypatch.setattr(recovery, "_LOOKED_BACK", size - 1)
    cut = len(recent_attempts(folder.fd, folder.path, size, 60.0))

    assert (10, 9) == (whole, cut)
