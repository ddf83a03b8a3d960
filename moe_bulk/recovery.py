"""Mend the files of a run that stopped: read back what its checkpoint does not know yet, and cut off what is torn."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import orjson

from moe_bulk.deadletter import clean
from moe_bulk.errors import RunRefused
from moe_bulk.journal import DEAD_LETTER, RESULTS, sync_to_disk, telling
from moe_bulk.outcome import FORMAT, Result
from moe_bulk.record import NOTE
from moe_bulk.settled import key, label_on_disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from moe_bulk.checkpoint import Checkpoint
    from moe_bulk.outcome import Attempt

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MEND = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

LONGEST_LINE = 64_000_000
"""Bytes of a line that is read back; what has no line feed for longer is torn."""

_LOOKED_BACK = 32_000_000
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Recovered:
    """Both files were mended: the bytes that are whole, behind which the journal goes on."""

    results: int
    dead_letters: int
    rebuilt: bool


class ReadBack:
    """What was settled since the checkpoint: go through `results` to the end, then `mend` the files.

    `rebuilt` is True where the files do not hold what the checkpoint says. Then everything is read back from their
    first byte on, and `checkpoint`, the one to count from, is an empty one: put it in place before `mend`, for the
    old one would speak of other lines later on.
    """

    def __init__(self, folder_fd: int, path: Path, checkpoint: Checkpoint, sources: Iterable[str]) -> None:
        self._folder_fd = folder_fd
        self._path = path
        self._sources = {label_on_disk(source) for source in sources}
        whole = self._whole(checkpoint)
        self.rebuilt = whole is None
        self.checkpoint = checkpoint.emptied() if whole is None else checkpoint
        self._results, self._dead_letters = whole or (0, 0)
        self._read = False

    def _whole(self, checkpoint: Checkpoint) -> tuple[int, int] | None:
        """The lengths of both files up to which the checkpoint vouches for them, where they are such files."""
        with ExitStack() as stack, telling(self._path):
            results = stack.enter_context(_opened(self._folder_fd, self._path, RESULTS))
            letters = stack.enter_context(_opened(self._folder_fd, self._path, DEAD_LETTER))
            kept = checkpoint.dead_letters
            if checkpoint.final_dead_letter is not None:
                kept = _size(letters)
                if kept not in (checkpoint.dead_letters, checkpoint.final_dead_letter):
                    return None
            if _ends_a_line(results, checkpoint.results) and _ends_a_line(letters, kept):
                return checkpoint.results, kept
        return None

    def results(self) -> Iterator[Result]:
        """What was settled, in the order of writing, up to the first line that is torn, not ours or alone.

        Their rows have no fields (`Result.from_line`). Raises JournalError where the files cannot be read.
        """
        with ExitStack() as stack:
            with telling(self._path):
                lines = stack.enter_context(_opened(self._folder_fd, self._path, RESULTS))
                letters = stack.enter_context(_opened(self._folder_fd, self._path, DEAD_LETTER))
                _seek(lines, self._results)
                _seek(letters, self._dead_letters)
            while (found := self._next(lines, letters)) is not None:
                yield found
        self._read = True

    def _next(self, lines: BinaryIO | None, letters: BinaryIO | None) -> Result | None:
        with telling(self._path):
            line = _line(lines)
            try:
                result = self._ours(line)
            except ValueError:
                return None
            if result.failed:
                letter = _line(letters)
                note = _note_on(result, letter)
                if note is None:
                    return None
                if "raw_bytes" in note:
                    result = Result.from_line(line, unreadable=True)
                self._dead_letters += len(letter)
        self._results += len(line)
        return result

    def _ours(self, line: bytes) -> Result:
        result = Result.from_line(line)
        key(result.position)
        if result.position.source not in self._sources or result.position.line < 1:
            raise ValueError("it tells of a row that is none of this run's")
        return result

    def mend(self) -> Recovered:
        """Cut both files behind what was read back, and return when that is safe from a power cut."""
        if not self._read:
            raise RuntimeError("go through the results first: what was not read back would be cut off")
        with telling(self._path):
            _cut(self._folder_fd, self._path, RESULTS, self._results)
            _cut(self._folder_fd, self._path, DEAD_LETTER, self._dead_letters)
        return Recovered(self._results, self._dead_letters, self.rebuilt)


@contextmanager
def _opened(folder_fd: int, path: Path, name: str) -> Iterator[BinaryIO | None]:
    """The file of the run folder, to read; None where there is none."""
    try:
        fd = _open(folder_fd, path, name, _READ)
    except FileNotFoundError:
        yield None
        return
    with os.fdopen(fd, "rb") as file:
        yield file


def _open(folder_fd: int, path: Path, name: str, flags: int) -> int:
    try:
        fd = os.open(name, flags, 0o600, dir_fd=folder_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_ours(path, name) from error
        raise
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
        os.close(fd)
        raise _not_ours(path, name)
    return fd


def _not_ours(path: Path, name: str) -> RunRefused:
    return RunRefused(
        f"{clean(str(path / name))} is no plain file of yours: see whose it is, or start over with --fresh"
    )


def _size(file: BinaryIO | None) -> int:
    return 0 if file is None else os.fstat(file.fileno()).st_size


def _ends_a_line(file: BinaryIO | None, length: int) -> bool:
    """Whether the file has so many bytes, and a line ends with the last of them."""
    if file is None or length == 0:
        return length == 0
    return os.pread(file.fileno(), 1, length - 1) == b"\n"


def _seek(file: BinaryIO | None, offset: int) -> None:
    if file is not None:
        file.seek(offset)


def _line(file: BinaryIO | None) -> bytes:
    """The next whole line; nothing where there is none."""
    line = b"" if file is None else file.readline(LONGEST_LINE)
    return line if line.endswith(b"\n") else b""


def _note_on(result: Result, letter: bytes) -> dict[str, object] | None:
    """What the dead letter says of its row, where it is that of this result."""
    try:
        said = orjson.loads(letter)
    except orjson.JSONDecodeError:
        return None
    note = said.get(NOTE) if type(said) is dict else None
    if type(note) is not dict:
        return None
    position = result.position
    expected = (FORMAT, position.source, position.line, position.item, result.status.value)
    told = tuple(note.get(name) for name in ("format", "source", "line", "item", "status"))
    return note if told == expected else None


def open_to_mend(folder_fd: int, path: Path, name: str) -> int:
    """Open the file of the run folder, or create it, to read and to write; RunRefused where it is none of ours."""
    return _open(folder_fd, path, name, _MEND)


def _cut(folder_fd: int, path: Path, name: str, length: int) -> None:
    fd = open_to_mend(folder_fd, path, name)
    try:
        if os.fstat(fd).st_size != length:
            os.ftruncate(fd, length)
        # where nothing was cut, too: what was read back may have been in memory only, and counts as safe from now on
        sync_to_disk(fd)
    finally:
        os.close(fd)


def recent_attempts(folder_fd: int, path: Path, size: int, seconds: float) -> list[Attempt]:
    """The attempts of the rows that settled in the last `seconds` before the last one did, in no order.

    Looks at the first `size` bytes of the results, from their end, at most 32 MB. JournalError where they cannot be
    read.
    """
    found: list[Attempt] = []
    with telling(path), _opened(folder_fd, path, RESULTS) as file:
        newest: float | None = None
        for line in _backwards(file, size):
            try:
                result = Result.from_line(line)
            except ValueError:
                break
            newest = result.settled_at if newest is None else newest
            if result.settled_at < newest - seconds:
                break
            found += result.attempts
    return found


def _backwards(file: BinaryIO | None, size: int) -> Iterator[bytes]:
    """The lines of the first `size` bytes, the last one first; without one that begins too far back."""
    if file is None:
        return
    end, least, rest = size, max(0, size - _LOOKED_BACK), b""
    while end > least:
        start = max(least, end - _BLOCK)
        head, *lines = (os.pread(file.fileno(), end - start, start) + rest).split(b"\n")
        yield from filter(None, reversed(lines))
        end, rest = start, head
    if least == 0 and rest:
        yield rest
