"""CSV, read strictly: quoted newlines are fine, ragged rows are invalid, and a quote left open harms only its line."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from moe_bulk.errors import SourceError
from moe_bulk.record import Position, Row
from moe_bulk.sources.base import MAX_BATCH, MAX_ROW
from moe_bulk.sources.lines import Line, Lines, too_long, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sources.opening import Bytes

SEPARATORS = ",;\t|"

_OPEN_QUOTE = "a quote is opened and never closed"
_PROBLEMS = {
    "unexpected end of data": _OPEN_QUOTE,
    "expected after": "a closing quote is followed by text, not by the separator",
    "new-line character": "a carriage return stands inside a cell without quotes",
}


class CsvSource:
    """Rows of a CSV stream whose first line that is not blank names the columns."""

    def __init__(self, name: str, stream: Bytes, lines: Lines) -> None:
        # The limit belongs to the process; a row of ours may be one cell.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
        self.name = name
        self.columns: tuple[str, ...] | None = None
        self._stream = stream
        self._batches = lines.batches()
        self._pending: list[Line] = []
        self._separator = ","
        self._ended = False
        self._enough = 0
        self._read_header()

    def batches(self) -> Iterator[list[Row]]:
        """Each record as a row; broken ones with their problem."""
        while True:
            rows = self._take_rows()
            for start in range(0, len(rows), MAX_BATCH):
                yield rows[start : start + MAX_BATCH]
            if self._ended and not self._pending:
                return
            if not self._read_more() and not rows:
                yield []

    def progress(self) -> tuple[int, int | None]:
        """Bytes read and in all, as stored."""
        return self._stream.progress()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _read_more(self) -> bool:
        """Read until a record that was not complete may be: re-reading it at every line would take for ever."""
        size = sum(line.length for line in self._pending)
        enough = 2 * size
        while size <= enough and not self._ended:
            lines = next(self._batches, None)
            if lines is None:
                self._ended = True
            elif not lines:
                return False
            else:
                self._pending += lines
                size += sum(line.length for line in lines)
        return True

    # -- the header ----------------------------------------------------------------------------------------------------

    def _read_header(self) -> None:
        while not self._ended:
            self._read_more()
            while self._pending and not self._pending[0].data.strip(b" \r\n"):
                del self._pending[0]
            for count in range(1, len(self._pending) + 1):
                cells = self._header_cells(self._pending[:count])
                if cells is not None:
                    del self._pending[:count]
                    self.columns = _names(self.name, cells)
                    return
        if self._pending:
            raise SourceError(f"{self.name}, line {self._pending[0].number}: {_OPEN_QUOTE} in the header")

    def _header_cells(self, lines: list[Line]) -> list[str] | None:
        """The header's cells, or None where more lines belong to it."""
        data = b"".join(line.data for line in lines)
        where = f"{self.name}, line {lines[0].number}"
        if any(line.cut for line in lines) or len(data) > MAX_ROW:
            raise SourceError(f"{where}: the header is longer than {MAX_ROW:,} bytes: is this a CSV file?")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise SourceError(f"{where}: the header is not UTF-8: convert the file with iconv") from None
        self._separator = _separator(text)
        try:
            return next(csv.reader(text.splitlines(keepends=True), delimiter=self._separator, strict=True))
        except csv.Error as error:
            if "unexpected end" in str(error):
                return None
            raise SourceError(f"{where}: the header cannot be read: {_problem(error)}") from None

    # -- the records ---------------------------------------------------------------------------------------------------

    def _take_rows(self) -> list[Row]:
        """Read all records that are complete in the pending lines."""
        rows: list[Row] = []
        at, lines = 0, self._pending
        while at < len(lines):
            if lines[at].cut:
                rows.append(unreadable(self.name, lines[at], too_long(lines[at])))
                at += 1
                continue
            end = next((index for index in range(at, len(lines)) if lines[index].cut), len(lines))
            stop = self._take_run(lines[at:end], rows, final=self._ended or end < len(lines))
            at += stop
            if at < end:
                break
        self._pending = lines[at:]
        return rows

    def _take_run(self, lines: list[Line], rows: list[Row], *, final: bool) -> int:
        """Read records from whole lines; returns how many lines were used up. What is left needs more lines."""
        at = 0
        while at < len(lines):
            at = self._take_smooth(lines, at, rows)
            if at == len(lines):
                break
            # The line at `at` begins a record that is broken, or not complete.
            problem = self._fault(lines, at)
            if problem is None:
                size = lines[-1].offset + lines[-1].length - lines[at].offset
                if not final and size <= MAX_ROW:
                    break
                problem = _OPEN_QUOTE
            rows.append(unreadable(self.name, lines[at], problem))
            at += 1
        return at

    def _take_smooth(self, lines: list[Line], at: int, rows: list[Row]) -> int:
        """Read records until one is in trouble; returns the index of the line where the next record begins."""
        columns = self.columns or ()
        width, name = len(columns), self.name
        texts, bad = _decoded(lines[at:])
        reader = csv.reader(texts, delimiter=self._separator, strict=True)
        begin = start = at
        try:
            for cells in reader:
                end = begin + reader.line_num
                line = lines[start]
                if bad and any(index in bad for index in range(start - begin, end - begin)):
                    rows.append(self._not_utf8(lines[start:end]))
                elif len(cells) == width and (width > 1 or cells[0].strip() or b'"' in line.data):
                    rows.append(Row(Position(name, line.number, line.offset), dict(zip(columns, cells, strict=True))))
                elif end - start > 1:
                    return start
                elif line.data.strip(b" \r\n"):
                    rows.append(unreadable(name, line, f"the row has {len(cells)} cells, the header has {width}"))
                start = end
        except csv.Error:
            pass
        return start

    def _fault(self, lines: list[Line], at: int) -> str | None:
        """What is wrong with the record that begins at a line; None where it is only not complete."""
        texts, _ = _decoded(lines[at:])
        reader = csv.reader(texts, delimiter=self._separator, strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            return None if "unexpected end" in str(error) else _problem(error)
        return (
            f"the row has {len(cells)} cells in {reader.line_num} lines, the header has {len(self.columns or ())}: "
            "a quote may have been left open"
        )

    def _not_utf8(self, lines: list[Line]) -> Row:
        data = b"".join(line.data for line in lines)
        whole = Line(lines[0].number, lines[0].offset, data, len(data))
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return unreadable(self.name, whole, f"byte {error.start + 1} of the row is not UTF-8")
        raise AssertionError("unreachable: one of the lines did not decode")


def _decoded(lines: list[Line]) -> tuple[list[str], frozenset[int]]:
    """The lines as text, and the indexes of those that are not UTF-8 (their bad bytes smuggled through)."""
    try:
        return [line.data.decode() for line in lines], frozenset()
    except UnicodeDecodeError:
        texts = [line.data.decode("utf-8", "surrogateescape") for line in lines]
        return texts, frozenset(index for index, text in enumerate(texts) if not _is_utf8(text))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _separator(header: str) -> str:
    """The separator that stands most often outside of quotes; a comma where there is none."""
    outside = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=lambda separator: (outside.count(separator), -SEPARATORS.index(separator)))


def _names(source: str, cells: list[str]) -> tuple[str, ...]:
    names = [cell.strip() or f"column {index}" for index, cell in enumerate(cells, 1)]
    for index, name in enumerate(names):
        if (first := names.index(name)) != index:
            raise SourceError(
                f"{source}, line 1: the column {name!r} stands twice, at {first + 1} and at {index + 1}: rename one"
            )
    return tuple(names)


def _problem(error: csv.Error) -> str:
    return next((said for sign, said in _PROBLEMS.items() if sign in str(error)), str(error))
