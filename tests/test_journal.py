"""The journal: what it says it wrote is there, in order, and after an error it says no more."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from io import FileIO
from typing import TYPE_CHECKING

import orjson
import pytest

from moe_bulk.errors import JournalError
from moe_bulk.journal import AppendOnlyFile, Journal, sync_to_disk, telling, trouble
from moe_bulk.outcome import Attempt, Result, Status
from moe_bulk.record import Position, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Disk(FileIO):
    """A file that takes at most `at_most` bytes a write, and `room` in all; then it is full, or says nothing."""

    at_most = 1_000_000
    room = 1_000_000
    full: int | None = errno.ENOSPC
    writes = 0

    def write(self, data: object, /) -> int:
        """Write what there is room for."""
        piece = bytes(memoryview(data))[: min(self.at_most, self.room)]  # type: ignore[arg-type]  # FileIO takes buffers
        if not piece and self.full is not None:
            raise OSError(self.full, os.strerror(self.full))
        self.writes += 1
        self.room -= len(piece)
        return super().write(piece)


def result(line: int, status: Status = Status.ACCEPTED, source: str = "d.csv", reason: str | None = None) -> Result:
    """Give the last word on a row."""
    place = Position(source, line, line)
    attempt = Attempt(1.0, 1.0, 1.0, error=reason)
    return Result(place, status, Row(place, {"a": line}), reason=reason, attempts=(attempt,))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk whose mood a test sets."""
    with Disk(tmp_path / "file", "w") as file:
        yield file


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal on a disk without trouble."""
    made = Journal(
        AppendOnlyFile.create(tmp_path / "results.ndjson"), AppendOnlyFile.create(tmp_path / "dead-letter.ndjson")
    )
    yield made
    made.close()


def test_file_is_private_from_its_creation(tmp_path: Path) -> None:
    """Nobody else reads along, however loose the umask is."""
    before = os.umask(0)
    try:
        AppendOnlyFile.create(tmp_path / "file").close()
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize("dangling", [True, False])
def test_file_follows_no_link(tmp_path: Path, *, dangling: bool) -> None:
    """A link planted under the name leads nowhere, whether its target exists or not."""
    target = tmp_path / "target"
    if not dangling:
        target.write_bytes(b"precious")
    (tmp_path / "file").symlink_to(target)

    with pytest.raises(JournalError, match="File exists"):
        AppendOnlyFile.create(tmp_path / "file")

    assert dangling is not target.exists()


def test_file_is_created_within_the_folder_that_is_held(tmp_path: Path) -> None:
    """A folder that was renamed meanwhile is still the folder."""
    (tmp_path / "run").mkdir()
    fd = os.open(tmp_path / "run", os.O_RDONLY)
    (tmp_path / "run").rename(tmp_path / "elsewhere")

    AppendOnlyFile.create(tmp_path / "run" / "file", dir_fd=fd).close()
    os.close(fd)

    assert (tmp_path / "elsewhere" / "file").exists()


def test_file_goes_on_where_others_wrote(tmp_path: Path) -> None:
    """Each write goes to the end of the file, wherever that is."""
    file = AppendOnlyFile.create(tmp_path / "file")
    file.write(b"one\n")
    (tmp_path / "file").write_bytes(b"longer line\n")
    file.write(b"two\n")
    file.close()

    assert (tmp_path / "file").read_bytes() == b"longer line\ntwo\n"


def test_write_counts_what_was_taken(tmp_path: Path, disk: Disk) -> None:
    """A batch is one write."""
    file = AppendOnlyFile(disk, tmp_path / "file")
    file.write(b"")
    file.write(b"one\ntwo\n")

    assert (file.written, disk.writes) == (8, 1)


def test_write_goes_on_after_a_short_one(tmp_path: Path, disk: Disk) -> None:
    """A system that takes three bytes at a time gets them all."""
    disk.at_most = 3
    file = AppendOnlyFile(disk, tmp_path / "file")

    file.write(b"one\ntwo\n")

    assert (file.written, disk.writes) == (8, 3)
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def test_write_to_a_full_disk_breaks_the_file(tmp_path: Path, disk: Disk) -> None:
    """Folder, reason and way out are told, and nothing is written behind the torn line, even after space was made."""
    disk.room = 6
    file = AppendOnlyFile(disk, tmp_path / "file")
    expected = (
        f"the run folder {tmp_path} cannot be used: No space left on device. "
        "Free at least 1 MB there, then run the same command again"
    )

    with pytest.raises(JournalError) as caught:
        file.write(b"one\ntwo\n")
    disk.room = 100
    with pytest.raises(JournalError) as again:
        file.write(b"three\n")
    with pytest.raises(JournalError):
        file.sync()

    assert expected == str(caught.value) == str(again.value)
    assert (file.written, (tmp_path / "file").read_bytes()) == (6, b"one\ntw")


def test_write_that_takes_nothing_is_an_error(tmp_path: Path, disk: Disk) -> None:
    """A system that takes no bytes and gives no reason does not hang us."""
    disk.room, disk.full = 0, None

    with pytest.raises(JournalError, match="Input/output error"):
        AppendOnlyFile(disk, tmp_path / "file").write(b"one\n")


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="only some systems have it")
def test_write_to_a_device_that_is_full(tmp_path: Path) -> None:
    """The real error of a real system is understood."""
    file = AppendOnlyFile(FileIO("/dev/full", "w"), tmp_path / "file")

    with pytest.raises(JournalError, match="Free at least"):
        file.write(b"one\n")
    file.close()


def test_sync_that_fails_breaks_the_file(tmp_path: Path) -> None:
    """After a failed sync nobody knows what is on the disk: a second one must not report success."""
    reader, writer = os.pipe()
    file = AppendOnlyFile(FileIO(writer, "w"), tmp_path / "file")

    with pytest.raises(JournalError, match="cannot be used: Invalid argument"):
        file.sync()
    with pytest.raises(JournalError):
        file.write(b"one\n")
    file.close()
    os.close(reader)


def test_close_waits_for_a_sync(tmp_path: Path) -> None:
    """A sync in a thread keeps its descriptor until it is done."""
    file = AppendOnlyFile.create(tmp_path / "file")
    closing = threading.Thread(target=file.close)
    with file._syncing:
        closing.start()
        assert not file._file.closed
    closing.join()
    file.close()

    assert file._file.closed


@pytest.mark.parametrize("full", [None, fcntl.F_GETFD, 12_345])
def test_sync_to_disk_by_whatever_the_system_knows(tmp_path: Path, full: int | None) -> None:
    """Where the thorough way is unknown to the system or the file system, the usual one is taken."""
    with (tmp_path / "file").open("wb") as file:
        sync_to_disk(file.fileno(), full)


@pytest.mark.parametrize(
    ("number", "needed", "told"),
    [
        (errno.ENOSPC, 0, "Free at least 1 MB there"),
        (errno.EDQUOT, 2_500_000, "Free at least 3 MB there"),
        (errno.EROFS, 0, "Make it writable"),
        (errno.EACCES, 0, "Make it writable"),
        (errno.ENOLCK, 0, "knows no locks"),
        (errno.EIO, 0, "Check that disk"),
    ],
)
def test_trouble_tells_the_way_out(tmp_path: Path, number: int, needed: int, told: str) -> None:
    """Each error of the system comes with something to do."""
    said = str(trouble(tmp_path, OSError(number, os.strerror(number)), needed))

    assert f"the run folder {tmp_path} cannot be used: {os.strerror(number)}. " in said
    assert told in said


@pytest.mark.parametrize(("error", "told"), [(OSError("odd"), "odd"), (OSError(), "OSError")])
def test_trouble_without_a_number(tmp_path: Path, error: OSError, told: str) -> None:
    """An error that says little is told all the same."""
    with pytest.raises(JournalError, match=f"cannot be used: {told}. Check"), telling(tmp_path):
        raise error


def test_record_writes_results_and_dead_letters(journal: Journal) -> None:
    """Each result has its line, each failure its dead letter."""
    journal.record([result(2), result(3, Status.INVALID)])
    journal.record([])
    journal.record([result(4, Status.SKIPPED)])
    journal.sync()

    lines = [orjson.loads(line) for line in journal.results.path.read_bytes().splitlines()]
    letters = [orjson.loads(line) for line in journal.dead_letters.path.read_bytes().splitlines()]

    assert [(line["line"], line["status"]) for line in lines] == [(2, "accepted"), (3, "invalid"), (4, "skipped")]
    assert [(each["a"], each["_moe_bulk"]["line"]) for each in letters] == [(3, 3)]
    assert journal.results.written == journal.results.path.stat().st_size


def test_dead_letter_is_written_before_its_result(tmp_path: Path, disk: Disk) -> None:
    """Where the dead letter cannot be written, its result is not either; and a later one neither."""
    disk.room = 0
    results = AppendOnlyFile.create(tmp_path / "results.ndjson")
    journal = Journal(results, AppendOnlyFile(disk, tmp_path / "dead-letter.ndjson"))

    with pytest.raises(JournalError):
        journal.record([result(2), result(3, Status.REJECTED)])
    with pytest.raises(JournalError):
        journal.record([result(4)])
    journal.close()

    assert results.written == 0


def test_no_dead_letter_follows_results_that_broke(tmp_path: Path, disk: Disk) -> None:
    """Results that cannot be written stop the dead letters too: one without a result would be sent twice."""
    disk.room = 0
    letters = AppendOnlyFile.create(tmp_path / "dead-letter.ndjson")
    journal = Journal(AppendOnlyFile(disk, tmp_path / "results.ndjson"), letters)

    for _ in range(2):
        with pytest.raises(JournalError):
            journal.record([result(2, Status.REJECTED)])
    once = letters.path.read_bytes().count(b"\n")
    journal.close()

    assert once == 1


def test_record_of_text_that_is_no_unicode(journal: Journal) -> None:
    """A file name that is no UTF-8 costs no result."""
    clean = result(1)
    journal.record([clean, result(2, Status.EXHAUSTED, "\udcff.csv", "no\ud800")])

    first, second = journal.results.path.read_bytes().splitlines(keepends=True)
    line = orjson.loads(second)

    assert clean.line() == first
    assert (line["source"], line["reason"], line["customer_id"]) == ("\\udcff.csv", "no\\ud800", None)
    assert line["attempts"][0]["error"] == "no\\ud800"
    assert orjson.loads(journal.dead_letters.path.read_bytes())["_moe_bulk"]["source"] == "\\udcff.csv"


def test_close_closes_both(tmp_path: Path) -> None:
    """One file that cannot be closed does not leave the other open."""

    class Stubborn(FileIO):
        """A file that fails as it is closed, as network shares do."""

        def close(self) -> None:
            """Close, and complain."""
            was_open = not self.closed
            super().close()
            if was_open:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    results = AppendOnlyFile.create(tmp_path / "results.ndjson")
    journal = Journal(results, AppendOnlyFile(Stubborn(tmp_path / "letters", "w"), tmp_path / "letters"))

    with pytest.raises(JournalError, match="Free at least"):
        journal.close()

    assert results._file.closed


def test_reopened_file_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    """A later session appends, and counts from where the earlier one ended."""
    path = tmp_path / "file"
    path.write_bytes(b"one\n")
    folder = os.open(tmp_path, os.O_RDONLY)
    file = AppendOnlyFile.reopen(path, 4)
    file.write(b"two\n")
    file.close()
    within = AppendOnlyFile.reopen(path, 8, dir_fd=folder)
    within.write(b"three\n")
    within.close()
    os.close(folder)

    assert (14, b"one\ntwo\nthree\n") == (within.written, path.read_bytes())


@pytest.mark.parametrize("length", [3, 5])
def test_reopened_file_has_the_length_that_is_known(tmp_path: Path, length: int) -> None:
    """Behind bytes that nobody accounted for nothing is appended."""
    (tmp_path / "file").write_bytes(b"x" * length)

    with pytest.raises(JournalError, match="file changed while it was taken up again"):
        AppendOnlyFile.reopen(tmp_path / "file", 4)


def test_reopened_file_is_a_plain_file(tmp_path: Path) -> None:
    """Links are not followed, pipes not waited for, and what is not there is not made."""
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    for name, told in [("link", "symbolic links"), ("pipe", "changed while"), ("missing", "No such file")]:
        with pytest.raises(JournalError, match=told):
            AppendOnlyFile.reopen(tmp_path / name, 0)
    os.close(reader)


def test_lengths_count_whole_batches_only(tmp_path: Path, disk: Disk) -> None:
    """A checkpoint after a full disk speaks neither of a torn line nor of a dead letter without its result."""
    results = AppendOnlyFile(disk, tmp_path / "results.ndjson")
    journal = Journal(results, AppendOnlyFile.create(tmp_path / "dead-letter.ndjson"))
    journal.record([result(2, Status.REJECTED)])
    whole = journal.results.written, journal.dead_letters.written
    disk.room = 10

    with pytest.raises(JournalError):
        journal.record([result(3, Status.REJECTED)])
    journal.close()

    assert whole == journal.lengths
    assert journal.results.written == whole[0] + 10
    assert journal.dead_letters.written > whole[1]


def test_trouble_counts_what_is_still_to_come(tmp_path: Path, disk: Disk) -> None:
    """The space to free is that of the whole run, where it is known, not that of the line that found no room."""
    disk.room = 0
    journal = Journal(
        AppendOnlyFile(disk, tmp_path / "results.ndjson"), AppendOnlyFile.create(tmp_path / "dead-letter.ndjson")
    )
    journal.expect(2_500_000)

    with pytest.raises(JournalError, match="Free at least 3 MB"):
        journal.record([result(2)])
    journal.close()
