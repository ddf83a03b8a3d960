"""What a run writes while it goes on: dead letters and result lines, appended and never rewritten."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from contextlib import contextmanager
from io import FileIO
from typing import TYPE_CHECKING

from moe_bulk.deadletter import clean, letter
from moe_bulk.errors import AGAIN, JournalError, RunRefused
from moe_bulk.outcome import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from moe_bulk.outcome import Result

RESULTS = "results.ndjson"
DEAD_LETTER = "dead-letter.ndjson"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that somebody left under the name would wait for its other end
_AGAIN = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_MEGABYTE = 1_000_000

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: fsync leaves the bytes in the drive's own memory, this does not (man 2 fsync there)."""


def trouble(folder: Path, error: OSError, needed: int = 0) -> JournalError:
    """What to tell when the system refuses to read or write in the run folder: which folder, why, and what to do.

    `needed` is the number of bytes that could not be written.
    """
    said = error.strerror or str(error) or type(error).__name__
    return JournalError(f"the run folder {clean(str(folder))} cannot be used: {said}. {_way_out(error.errno, needed)}")


def refusal(folder: Path, error: OSError) -> JournalError:
    """The same before anything was sent: RunRefused where the command or the folder must change first.

    A full or broken disk is no fault of the command, and passes: then it is the plain JournalError.
    """
    told = trouble(folder, error)
    return told if error.errno in _PASSING else RunRefused(str(told))


def _way_out(number: int | None, needed: int) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"Free at least {needed // _MEGABYTE + 1} MB there, then {AGAIN}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Make it writable for you, or choose another with --out, then {AGAIN}"
    if number in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        return "Its file system knows no locks: choose a folder on a local disk with --out"
    return f"Check that disk, or choose another folder with --out, then {AGAIN}"


@contextmanager
def telling(folder: Path, needed: int = 0) -> Iterator[None]:
    """Within it, an OSError becomes the JournalError that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        raise trouble(folder, error, needed) from error


def sync_to_disk(fd: int, full: int | None = _FULL_SYNC) -> None:
    """Return when the file's bytes are where a power cut does not reach them."""
    if full is not None:
        try:
            fcntl.fcntl(fd, full)
        except OSError:
            # file systems that do not know it, such as network shares, know fsync
            os.fsync(fd)
    else:
        getattr(os, "fdatasync", os.fsync)(fd)


class AppendOnlyFile:
    """A file of the run folder that only grows: 0600 from its creation, no link followed, nothing overwritten.

    After an error it takes nothing more: what came behind a torn line would be misread. `written` is its length in
    bytes, of those that the system took. `sync` may run in a thread beside `write`.
    """

    def __init__(self, file: FileIO, path: Path, written: int = 0) -> None:
        self.path = path
        self.written = written
        self.expected = 0
        """Bytes that are still to come, as far as anybody knows: so much room is asked for when there is none."""
        self._file = file
        self._broken: JournalError | None = None
        # close() waits for a sync that a thread is in: its descriptor may belong to another file afterwards
        self._syncing = threading.Lock()

    @classmethod
    def create(cls, path: Path, *, dir_fd: int | None = None) -> AppendOnlyFile:
        """Create it at `path`, or by the path's name within the folder that `dir_fd` holds open."""
        with telling(path.parent):
            fd = os.open(path if dir_fd is None else path.name, _NEW, 0o600, dir_fd=dir_fd)
        return cls(FileIO(fd, "a"), path)

    @classmethod
    def reopen(cls, path: Path, at: int, *, dir_fd: int | None = None) -> AppendOnlyFile:
        """Go on behind the `at` bytes that an earlier session wrote; JournalError where it has not just these."""
        with telling(path.parent):
            file = FileIO(os.open(path if dir_fd is None else path.name, _AGAIN, dir_fd=dir_fd), "a")
            about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size != at:
            file.close()
            raise JournalError(
                f"{clean(str(path))} changed while it was taken up again: somebody else writes there. "
                f"See to it that nobody does, then {AGAIN}"
            )
        return cls(file, path, at)

    def write(self, lines: bytes | bytearray) -> None:
        """Append whole lines, in one write where the system takes them at once; JournalError where it does not."""
        self.check()
        left = memoryview(lines)
        try:
            while left:
                taken = self._take(left)
                self.written += taken
                left = left[taken:]
        except OSError as error:
            raise self._break(error, max(len(left), self.expected)) from error

    def _take(self, left: memoryview) -> int:
        taken = self._file.write(left)
        if not taken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return taken

    def sync(self) -> None:
        """Return when everything written so far is safe from a power cut; JournalError where that cannot be said."""
        with self._syncing:
            self.check()
            try:
                sync_to_disk(self._file.fileno())
            except OSError as error:
                # the system may have dropped the bytes: a second sync would report a success that is none
                raise self._break(error, self.expected) from error

    def check(self) -> None:
        """Raise the error that broke the file, if one did."""
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        """Close it, after a sync that is under way; a second time changes nothing."""
        with self._syncing, telling(self.path.parent):
            self._file.close()

    def _break(self, error: OSError, needed: int) -> JournalError:
        self._broken = trouble(self.path.parent, error, needed)
        return self._broken


class Journal:
    """What became of each row, on disk: the last word of a run.

    A dead letter is written before its result, so a result that can be read has all that belongs to it.
    """

    def __init__(self, results: AppendOnlyFile, dead_letters: AppendOnlyFile) -> None:
        self.results = results
        self.dead_letters = dead_letters
        self._lengths = results.written, dead_letters.written

    @property
    def lengths(self) -> tuple[int, int]:
        """Bytes of the results and of the dead letters up to the last whole batch: what a checkpoint may speak of.

        Behind them there may be the beginning of a batch that the disk did not take.
        """
        return self._lengths

    def expect(self, more: int) -> None:
        """About so many bytes are still to be written."""
        self.results.expected = self.dead_letters.expected = more

    def record(self, batch: Sequence[Result]) -> None:
        """Write a small batch: the dead letters of its failures in one write, then its result lines in one."""
        letters = b"".join([letter(result) for result in batch if result.status in FAILED])
        lines = bytearray()
        for result in batch:  # each is let go of at once, so that all are made in the same place of memory
            try:
                lines += result.line()
            except TypeError:
                # JSON knows no lone surrogates; they come from file names that are no UTF-8, and from rows in memory
                lines += _without_surrogates(result).line()
        self.results.check()
        self.dead_letters.write(letters)
        self.results.write(lines)
        self._lengths = self.results.written, self.dead_letters.written

    def sync(self) -> None:
        """Make what is written safe from a power cut, dead letters first; to be called in a thread."""
        self.dead_letters.sync()
        self.results.sync()

    def close(self) -> None:
        """Close both files; syncing them is the caller's decision."""
        try:
            self.dead_letters.close()
        finally:
            self.results.close()


def _without_surrogates(result: Result) -> Result:
    return result._replace(
        position=result.position._replace(source=clean(result.position.source)),
        attempts=tuple(each._replace(error=_cleaned(each.error)) for each in result.attempts),
        customer_id=_cleaned(result.customer_id),
        device_id=_cleaned(result.device_id),
        error_type=_cleaned(result.error_type),
        reason=_cleaned(result.reason),
        request_id=_cleaned(result.request_id),
    )


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean(text)
