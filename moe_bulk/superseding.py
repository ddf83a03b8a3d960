"""Which dead letters are obsolete: the pass at a run's end that names, for each, the later row that was accepted.

Both files may be far larger than memory. The letters are taken up in chunks, in the order of the input; each chunk is
one reading of the results, from which only what the chunk needs is kept. Lines that cannot matter are told by a few of
their bytes, as in `successors`; every other line is read in full.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Self

import orjson

from moe_bulk.deadletter import clean
from moe_bulk.errors import JournalError
from moe_bulk.journal import sync_to_disk, telling
from moe_bulk.outcome import DELIVERED, FAILED, FORMAT, Result, Status
from moe_bulk.record import NOTE, Position
from moe_bulk.successors import Failure, Successors, ids_in_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

STOPPED: Final = -1
"""What `supersede` returns when it was stopped: nothing has changed."""

_BUFFER = 1 << 18
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_STATUS = re.compile(rb'"status":"([a-z]+)"')
_ACCEPTED = b'"status":"accepted"'
_FINE = frozenset(status.value.encode() for status in Status if status not in FAILED)
_OTHERS = frozenset(status.value.encode() for status in Status if status not in DELIVERED)

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]')
_BRACKETS = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
_NOTE = b'"%s"' % NOTE.encode()
_SUPERSEDED_BY = b'"superseded_by"'
_LINE = re.compile(rb":(null|[0-9]+)")
_NAMED = re.compile(rb'"superseded_by":[0-9]')


class Portions(NamedTuple):
    """How much is done at once: the bounds of time and memory."""

    letters: int = 50_000
    """That are looked at in one reading of the results at most: some 50 MB."""
    lines: int = 1000
    """Of results that are read, or left out, together; and lines or letters until `stopping` is asked again."""
    few: int = 3_000
    """That may always be looked at in one reading: some 3 MB, so that a run needs no more memory at its end."""
    readings: int = 16
    """That are no trouble: rather than more of them, more letters are looked at in each."""


PORTIONS: Final = Portions()


def supersede(
    results: Path,
    letters: Path,
    sources: Sequence[str],
    stopping: Callable[[], bool],
    *,
    dir_fd: int | None = None,
    portions: Portions = PORTIONS,
) -> int | None:
    """Write the dead letters anew, each with the line of the first later accepted row that shares a key with it.

    They go to `<name>.part` beside `letters`, in the order of the input, for the caller to put in their place: returns
    its length in bytes when it is safe from a power cut. Returns None where nothing changes, and `STOPPED` as soon as
    `stopping()` is true; either leaves no part. Apart from `superseded_by` each letter stays as it is, byte for byte;
    doing it again changes nothing. `sources` are the input's labels in its order. With `dir_fd` both are names within
    that folder. Raises JournalError where results and letters do not belong together.
    """
    part = letters.with_name(f"{letters.name}.part")
    with telling(letters.parent), ExitStack() as stack:
        lines = stack.enter_context(_opened(results, dir_fd))
        old = stack.enter_context(_opened(letters, dir_fd))
        size = os.fstat(old.fileno()).st_size
        if not size:
            return None
        work = _Superseding(lines, old, sources, stopping, portions)
        try:
            work.survey()
            with telling(letters.parent, size), _Part(part, dir_fd) as new:
                return new.keep(work.rewritten())
        except _Stopped:
            return STOPPED
        except _Mismatch as error:
            raise _refusal(results, letters, str(error)) from error


class _Stopped(Exception):
    """Somebody asked to stop."""


class _Mismatch(Exception):
    """The two files do not belong together."""


def _refusal(results: Path, letters: Path, why: str) -> JournalError:
    return JournalError(
        f"{clean(str(letters))} and {results.name} do not belong together ({why}): somebody else changed one of them. "
        "What was delivered stays delivered; to deliver all of it again, add --fresh"
    )


def _opened(path: Path, dir_fd: int | None) -> BinaryIO:
    fd = os.open(path if dir_fd is None else path.name, _OLD, dir_fd=dir_fd)
    return os.fdopen(fd, "rb", _BUFFER)


class _Part:
    """The new file while it is written; it is gone again unless it was kept."""

    def __init__(self, path: Path, dir_fd: int | None) -> None:
        self._name = path if dir_fd is None else path.name
        self._dir_fd = dir_fd
        self._kept = False

    def __enter__(self) -> Self:
        self._remove()  # of a run that was killed
        self._file = os.fdopen(os.open(self._name, _NEW, 0o600, dir_fd=self._dir_fd), "wb", _BUFFER)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # its bytes are on disk, or of no use
            self._file.close()
        if not self._kept:
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._dir_fd)

    def keep(self, letters: Iterator[tuple[bytes, bool]]) -> int | None:
        """Write them all, each with whether it changed; the length of the file, None if none did."""
        length, changed = 0, False
        for letter, differs in letters:
            self._file.write(letter)
            length += len(letter)
            changed |= differs
        if not changed:
            return None
        self._file.flush()
        sync_to_disk(self._file.fileno())
        self._kept = True
        return length


@dataclass(slots=True)
class _Block:
    """Some result lines: where they and their letters begin, between which places they failed, whether all did."""

    results: int
    letters: int
    first: float = math.inf
    last: int = -1
    fine: bool = False


class _Superseding:
    """The work on one pair of files: first `survey`, then `rewritten`."""

    def __init__(
        self,
        results: BinaryIO,
        letters: BinaryIO,
        sources: Sequence[str],
        stopping: Callable[[], bool],
        portions: Portions,
    ) -> None:
        self._results = results
        self._letters = letters
        self._sources = {clean(source): number for number, source in enumerate(sources)}
        self._names = [clean(source) for source in sources]
        self._stopping = stopping
        self._portions = portions
        self._blocks: list[_Block] = []
        self._failed = 0
        # Letters stand in the order in which their results were written, or already in that of the input.
        self._as_settled = True

    # -- reading -------------------------------------------------------------------------------------------------------

    def survey(self) -> None:
        """Read both files once, side by side; remember of each block what says whether it is needed."""
        size = os.fstat(self._results.fileno()).st_size
        while (at := self._results.tell()) < size:
            block = _Block(at, self._letters.tell())
            for raw in self._lines(block):
                if _ACCEPTED in raw or _status(raw) in _FINE or not (result := self._read(raw)).failed:
                    block.fine = True
                else:
                    self._survey_failure(block, result)
            self._blocks.append(block)
        if self._letters.readline():
            raise _Mismatch("there are more letters than failures")

    def _survey_failure(self, block: _Block, result: Result) -> None:
        place = self._place(result.position)
        self._failed += 1
        block.first, block.last = min(block.first, place), max(block.last, place)
        letter = self._letters.readline()
        if not letter.endswith(b"\n"):
            raise _Mismatch("there are fewer letters than failures")
        self._as_settled = self._as_settled and _mark(result.position) in letter

    def _choose(self, after: int) -> list[Failure]:
        """The next failures behind this place, in the order of the input, as many as make a chunk."""
        heap: list[Failure] = []
        portions = self._portions
        most = min(portions.letters, max(portions.few, math.ceil(self._failed / portions.readings)))
        for block in self._blocks:
            if block.last <= after or (len(heap) == most and block.first > -heap[0].minus):
                continue
            for failure in self._failures(block):
                if -failure.minus <= after:
                    continue
                if len(heap) < most:
                    heapq.heappush(heap, failure)
                else:
                    heapq.heappushpop(heap, failure)
        return sorted(heap, reverse=True)

    def _failures(self, block: _Block) -> Iterator[Failure]:
        self._letters.seek(block.letters)
        for raw in self._lines(block):
            if _ACCEPTED in raw or _status(raw) in _FINE or not (result := self._read(raw)).failed:
                continue
            place, at = self._place(result.position), self._letters.tell()
            self._letters.readline()
            yield Failure(-place, result.position.line, at, "".join(result.hashes), ids_in_line(result))

    def _look_ahead(self, chunk: list[Failure]) -> list[int | None]:
        """For each of these failures the line of the first later accepted row that shares a key with it."""
        ahead = Successors(chunk)
        for block in self._blocks:
            for raw in ahead.among(self._lines(block)) if block.fine else ():
                if _status(raw) not in _OTHERS and (result := self._read(raw)).status in DELIVERED:
                    ahead.take(self._place(result.position), result)
        return ahead.lines()

    def _lines(self, block: _Block) -> Iterator[bytes]:
        self._check()
        self._results.seek(block.results)
        return islice(self._results, self._portions.lines)

    def _check(self) -> None:
        if self._stopping():
            raise _Stopped

    def _read(self, raw: bytes) -> Result:
        try:
            return Result.from_line(raw)
        except ValueError as error:
            where = self._results.tell() - len(raw)
            raise _Mismatch(f"the results cannot be read at byte {where:,}: {error}") from None

    def _place(self, position: Position) -> int:
        """A place in the input as one number."""
        number = self._sources.get(position.source)
        if number is None:
            raise _Mismatch(f"{position} is none of this run's rows")
        return ((number << 64) + position.offset << 32) + position.item

    # -- writing -------------------------------------------------------------------------------------------------------

    def rewritten(self) -> Iterator[tuple[bytes, bool]]:
        """All letters in the order of the input as they should be, each with whether that changes the file."""
        after, written = -1, 0
        while chunk := self._choose(after):
            lines = self._look_ahead(chunk)
            for number, (failure, line) in enumerate(zip(chunk, lines, strict=True)):
                if not number % self._portions.lines:
                    self._check()
                at = failure.letter if self._as_settled else written
                letter = self._letter(failure, at)
                new = _naming(letter, line)
                yield new, at != written or new != letter
                written += len(letter)
            after = -chunk[-1].minus
        if written != os.fstat(self._letters.fileno()).st_size:
            raise _Mismatch("a row failed twice")

    def _letter(self, failure: Failure, at: int) -> bytes:
        self._letters.seek(at)
        letter = self._letters.readline()
        place = -failure.minus
        position = Position(self._names[place >> 96], failure.line, 0, place & 0xFFFFFFFF)
        if _mark(position) not in letter:
            raise _Mismatch(f"the letter of {position} is not where it should be")
        return letter


def _status(raw: bytes) -> bytes | None:
    """The status that a result line seems to have; None where that takes a closer look."""
    found = _STATUS.search(raw)
    return None if found is None else found[1]


def _mark(position: Position) -> bytes:
    """What the note of this row's letter begins with."""
    own = {"format": FORMAT, "source": position.source, "line": position.line, "item": position.item}
    return b"%s:%s," % (_NOTE, orjson.dumps(own)[:-1])


def _naming(letter: bytes, line: int | None) -> bytes:
    """The letter with this line in its note's `superseded_by`."""
    if line is None and not _NAMED.search(letter):
        return letter
    start, end = _span(letter)
    return b"%s%s%s" % (letter[:start], orjson.dumps(line), letter[end:])


def _span(letter: bytes) -> tuple[int, int]:
    """Where the value of `superseded_by` stands: in the note, not in the row or in what the note quotes."""
    depth, name = 0, b""
    for token in _TOKEN.finditer(letter):
        text = token[0]
        if text in _BRACKETS:
            depth += _BRACKETS[text]
        elif depth == 1:
            name = text
        elif depth == 2 and text == _SUPERSEDED_BY and name == _NOTE and (value := _LINE.match(letter, token.end())):
            return value.span(1)
    raise _Mismatch("a letter lost its superseded_by")
