"""Bytes cut at line feeds: pieces of whole lines that know where they stand.

What has come is handed on before more is asked for, so that rows arrive as they are fed. Memory is bounded: of a line
that is too long only the beginning is kept.
"""

from __future__ import annotations

import io
from itertools import count, repeat
from typing import TYPE_CHECKING, NamedTuple

from moe_bulk.record import RAW_KEPT, Position, Row, new_tuple
from moe_bulk.sources.base import MAX_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BLANKS = b" \t\r"
"""What a blank line may hold."""


class Piece(NamedTuple):
    """Whole lines; or one line that is too long, then `overlong` is how many bytes it has without its line feed.

    `line` and `offset` tell where it begins. Only the last line of all may lack its line feed. Of a line that is too
    long `data` is the beginning, or nothing where it is blank.
    """

    line: int
    offset: int
    data: bytes
    overlong: int = 0


class Pieces:
    """Cuts what `read` gives into pieces, beginning at any line and offset.

    `read` gives nothing (`b""`) at the end, and None when nothing came for a while; so do the pieces.
    """

    def __init__(
        self, read: Callable[[], bytes | None], line: int = 1, offset: int = 0, max_row: int = MAX_ROW
    ) -> None:
        self.max_row = max_row
        self._kept = min(RAW_KEPT, max_row)
        self._read = read
        self._line = line
        self._offset = offset
        self._rest = b""

    def __iter__(self) -> Iterator[Piece | None]:
        tail = bytearray()  # of a line whose end has not come yet
        while (block := self._rest or self._read()) != b"":
            self._rest = b""
            if block is None:
                yield None
                continue
            if end := block.rfind(b"\n") + 1:
                yield from self._whole(bytes(tail) + block[:end])
                tail.clear()
            tail += block[end:]
            if len(tail) > self.max_row:
                yield from self._skip(tail)
                tail = bytearray()
        if tail:
            yield self._piece(bytes(tail))

    def _whole(self, data: bytes) -> Iterator[Piece]:
        """Whole lines; those that are too long stand alone."""
        start = at = 0
        while len(data) - at > self.max_row:
            end = data.index(b"\n", at)
            if end - at > self.max_row:
                if at > start:
                    yield self._piece(data[start:at])
                yield self._too_long(data[at : at + self._kept], end - at, blank=not data[at:end].strip(BLANKS))
                start = end + 1
            at = end + 1
        if start < len(data):
            yield self._piece(data[start:])

    def _skip(self, tail: bytearray) -> Iterator[Piece | None]:
        """Read on to the end of a line that is too long already, keeping only its beginning."""
        beginning, length, blank = bytes(tail[: self._kept]), len(tail), not tail.strip(BLANKS)
        tail.clear()
        feed = b""
        while not feed and (block := self._read()) != b"":
            if block is None:
                yield None
                continue
            line, feed, self._rest = block.partition(b"\n")
            length += len(line)
            blank = blank and not line.strip(BLANKS)
        yield self._too_long(beginning, length, blank=blank)

    def _piece(self, data: bytes) -> Piece:
        piece = Piece(self._line, self._offset, data)
        # To count the line feeds takes six times as long. What follows no line feed is the end, and counts for nobody.
        self._line += len(io.BytesIO(data).readlines())
        self._offset += len(data)
        return piece

    def _too_long(self, beginning: bytes, length: int, *, blank: bool) -> Piece:
        piece = Piece(self._line, self._offset, b"" if blank else beginning, length)
        self._line += 1
        self._offset += length + 1  # the last line of all may have no line feed, but nothing comes behind it
        return piece


def positions(source: str, line: int, offsets: Iterable[int]) -> Iterator[Position]:
    """Where lines stand that begin at `offsets`, the first being number `line`; made by iterators in C."""
    return map(new_tuple, repeat(Position), zip(repeat(source), count(line), offsets, repeat(0)))


def bad_row(place: Position, problem: str, raw: bytes) -> Row:
    """A row that could not be read: as much of its bytes as is kept, without its line end."""
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    return Row(place, None, problem, raw[:RAW_KEPT], len(raw))


def long_rows(source: str, piece: Piece, max_row: int) -> list[Row]:
    """The row that a line of more than `max_row` bytes is; none where it is blank."""
    if not piece.data:
        return []
    problem = f"the line has {piece.overlong:,} bytes, and a row may have {max_row:,}"
    return [Row(Position(source, piece.line, piece.offset), None, problem, piece.data, piece.overlong)]


def not_utf8(raw: bytes) -> str | None:
    """What is wrong with bytes that are no UTF-8; None where nothing is."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the row (0x{raw[error.start]:02x}) is not UTF-8: export the file as UTF-8"
    return None
