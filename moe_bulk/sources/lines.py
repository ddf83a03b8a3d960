"""Bytes → lines, each with its number and offset, in bounded memory however long a line is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from moe_bulk.errors import SourceError
from moe_bulk.record import RAW_KEPT, Position, Row
from moe_bulk.sources.base import MAX_ROW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sources.opening import Bytes

BOM = b"\xef\xbb\xbf"
HEAD = 200
"""Bytes that are looked at to tell an encoding and a format."""


class Line(NamedTuple):
    """One line with its line feed, if it has one. Of an over-long line `data` is only the beginning: see `cut`."""

    number: int
    offset: int
    data: bytes
    length: int

    @property
    def cut(self) -> bool:
        """True for a line that was too long to be held."""
        return self.length != len(self.data)


class Lines:
    """The lines of a stream; a byte order mark at its beginning is left out, other encodings than UTF-8 are refused."""

    def __init__(self, name: str, stream: Bytes, *, longest: int = MAX_ROW) -> None:
        self.name = name
        self._stream = stream
        self._longest = longest
        self._number = 1
        self._offset = 0
        self._head: bytes | None = None

    def head(self) -> bytes:
        """The first bytes, read ahead: at least a line or `HEAD` bytes, where there are so many."""
        if self._head is None:
            head = b""
            while len(head) < HEAD and b"\n" not in head:
                some = self._stream.read()
                if some == b"":
                    break
                head += some or b""
            _refuse_utf16(self.name, head[:HEAD])
            if head.startswith(BOM):
                head = head[len(BOM) :]
                self._offset = len(BOM)
            self._head = head
        return self._head

    def batches(self) -> Iterator[list[Line]]:
        """The lines, as many at a time as were read; an empty list where nothing came for a while."""
        rest = self.head()
        self._head = b""
        lines, rest = self._split(rest)
        yield lines
        while (block := self._stream.read()) != b"":
            if block is None:
                yield []
                continue
            lines, rest = self._split(rest + block)
            yield lines
            if len(rest) > self._longest:
                yield self._skip(rest)
                rest = self._rest
        if rest:
            yield self._numbered([rest])

    def _split(self, block: bytes) -> tuple[list[Line], bytes]:
        end = block.rfind(b"\n") + 1
        return self._numbered(io.BytesIO(block[:end]).readlines()), block[end:]

    def _numbered(self, found: list[bytes]) -> list[Line]:
        number, offset, longest = self._number, self._offset, self._longest
        lines = []
        for data in found:
            length = len(data)
            lines.append(Line(number, offset, data if length <= longest + 1 else data[:RAW_KEPT], length))
            number += 1
            offset += length
        self._number, self._offset = number, offset
        return lines

    def _skip(self, begun: bytes) -> list[Line]:
        """Read past the end of an over-long line; what follows it in the last block is the new rest."""
        length = len(begun)
        self._rest = b""
        while (block := self._stream.read()) != b"":
            end = (block or b"").find(b"\n") + 1
            if block and end:
                length += end
                self._rest = block[end:]
                break
            length += len(block or b"")
        line = Line(self._number, self._offset, begun[:RAW_KEPT], length)
        self._number += 1
        self._offset += length
        return [line]


def unreadable(source: str, line: Line, problem: str) -> Row:
    """The row of a line that cannot be read, with its bytes."""
    text = line.data.rstrip(b"\r\n") if not line.cut else line.data
    length = line.length if line.cut else len(text)
    return Row(Position(source, line.number, line.offset), None, problem, text[:RAW_KEPT], length)


def too_long(line: Line) -> str:
    """The problem of an over-long line."""
    return f"the row has {line.length:,} bytes, {MAX_ROW:,} are allowed"


def _refuse_utf16(name: str, head: bytes) -> None:
    even, odd = head[::2], head[1::2]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(odd) > 1 and (not any(even) or not any(odd))):
        raise SourceError(
            f"{name} is not UTF-8 but UTF-16: convert it with `iconv -f UTF-16 -t UTF-8 {name}` and upload the result"
        )
