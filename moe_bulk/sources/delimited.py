"""CSV, in all the spellings that spreadsheets and exports have, read as by `csv.reader` (strict).

A record may stretch over lines, because line feeds may stand in quotes. Where that goes wrong it is its first line's
fault: that line is a bad row, and reading goes on with the next one, so no quote swallows what stands behind it. Which
rows come out does not depend on how the bytes are cut. Lines that are rows of their own, as nearly all are, are read
many at once; in a piece without quotes and lone carriage returns they are cut at the separators, which gives the same.
"""

from __future__ import annotations

import csv
import io
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, NamedTuple

from moe_bulk.errors import SourceError
from moe_bulk.record import Position, Row, new_tuple
from moe_bulk.sources.base import MAX_BATCH, MAX_ROW
from moe_bulk.sources.lines import BLANKS, Piece, bad_row, long_rows, not_utf8, positions

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Generator, Iterator

    from moe_bulk.sources.lines import Pieces

SEPARATORS = ",;\t|"

_NOTHING = Piece(1, 0, b"")
_LONE_CR = "where CR alone ends the lines, tr '\\r' '\\n' < OLD > NEW helps"
_OPEN_QUOTE = "a quote is opened and not closed as it should be: this line is left out, and the next one begins a row"


class Delimited:
    """The rows of CSV in `pieces`; `name` is what their positions call the source.

    `columns` are the header's names; None where there is no header because there is nothing at all. Making one reads
    the header, and raises SourceError for one that is of no use. It also raises the process-wide
    `csv.field_size_limit` (131,072 characters) to what a row may have.
    """

    def __init__(self, name: str, pieces: Pieces) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
        self.columns: tuple[str, ...] | None = None
        self._name = name
        self._max_row = pieces.max_row
        self._pieces = iter(pieces)
        self._separator = ","
        self._behind_header = self._read_header()
        self._blanks = (BLANKS + b"\n").replace(self._separator.encode(), b"")

    def batches(self) -> Iterator[list[Row]]:
        """Give the rows in lists of at most `MAX_BATCH`, and an empty list where nothing came for a while.

        A cell is text, an empty one the empty text.
        """
        begun = yield from self._settle(self._behind_header, final=False)
        more, came = list[bytes](), 0
        for piece in self._pieces:
            if piece is None:
                begun = yield from self._settle(_join(begun, more), final=False)
                yield []
            elif piece.overlong:
                yield from self._settle(_join(begun, more), final=True)
                yield long_rows(self._name, piece, self._max_row)
                begun = _NOTHING
            else:
                more.append(piece.data)
                came += len(piece.data)
                # What was begun is read again when as much again has come: at every piece would take for ever.
                if begun.data and came < len(begun.data):
                    continue
                begun = yield from self._settle(_join(begun, more) if begun.data else piece, final=False)
            more, came = [], 0
        yield from self._settle(_join(begun, more), final=True)

    def go_on(self, pieces: Pieces) -> None:
        """Give the rows in these pieces in place of those behind the header."""
        self._pieces = iter(pieces)
        self._behind_header = _NOTHING

    def _settle(self, piece: Piece, *, final: bool) -> Generator[list[Row], None, Piece]:
        """Give the rows in a piece; return the lines of a record that goes on behind it, unless it is `final`."""
        lines = _Lines(piece)
        at, batch, hopeless = 0, list[Row](), False
        while plain := self._read_plain(lines, at):
            yield plain
            at += len(plain)
        # where some line is not plain, others nearby are not, either: to read all of them twice would take longer
        while at < lines.count:
            at, problem, cut_off = self._read(lines, at, batch, alone=hopeless)
            if cut_off and not final and lines.size(at, lines.count) < self._max_row:
                break
            # No line from here on closes a quote that is open before it, so none need be searched again.
            hopeless = hopeless or cut_off
            if problem:
                if not self._is_blank(lines, at):
                    batch.append(bad_row(lines.place(self._name, at), problem, lines.raw(at, at + 1)))
                at += 1
            if len(batch) == MAX_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch
        return lines.rest(at)

    def _read_plain(self, lines: _Lines, at: int) -> list[Row]:
        """The rows of the next `MAX_BATCH` lines where each of them is one; none where one needs a closer look."""
        columns = self.columns or ()
        if not lines.is_utf8 or len(columns) < 2:
            return []
        try:
            records = lines.records(at, at + MAX_BATCH, self._separator)
        except csv.Error:
            return []
        if set(map(len, records)) != {len(columns)}:  # there may be none left, too
            return []
        places = positions(self._name, lines.line + at, lines.starts[at : at + len(records)])
        # as many cells as names, each time: to have that checked once more takes a tenth longer
        return [Row(place, dict(zip(columns, cells))) for place, cells in zip(places, records)]  # noqa: B905

    def _read(self, lines: _Lines, at: int, batch: list[Row], *, alone: bool) -> _Stop:
        """Add records from line `at` on, or this line `alone`, to the batch until it is full or one is at fault."""
        source, columns, line, starts = self._name, self.columns or (), lines.line, lines.starts
        width = len(columns) if lines.is_utf8 and len(columns) > 1 else -1
        first, ended, new = at, list[bool](), new_tuple
        reader = lines.reader(at, at + 1 if alone else None, self._separator, ended)
        try:
            for cells in reader:
                end = first + reader.line_num
                if len(cells) == width and end - at == 1:
                    fields: dict[str, object] = dict(zip(columns, cells))  # noqa: B905  as above
                    batch.append(Row(new(Position, (source, line + at, starts[at], 0)), fields))
                elif (rows := self._closer_look(lines, at, end, cells)) is None:
                    return _Stop(at, _OPEN_QUOTE)
                else:
                    batch += rows
                at = end
                if len(batch) == MAX_BATCH:
                    break
        except csv.Error as error:
            if ended or first + reader.line_num - at > 1:
                return _Stop(at, _OPEN_QUOTE, bool(ended))
            return _Stop(at, f"not valid CSV: {error}")
        return _Stop(at)

    def _closer_look(self, lines: _Lines, at: int, end: int, cells: list[str]) -> list[Row] | None:
        """The row of a record that is not plain; no row for a blank line, None for a record that cannot be one."""
        columns = self.columns or ()
        ragged = len(cells) != len(columns)
        if end - at > 1:
            if ragged or lines.size(at, end) > self._max_row:
                return None
        elif self._is_blank(lines, at):
            return []
        place = lines.place(self._name, at)
        problem = None if lines.is_utf8 else not_utf8(lines.raw(at, end))
        if ragged and not problem:
            problem = f"the row has {len(cells)} cells, the header has {len(columns)}"
        if problem:
            return [bad_row(place, problem, lines.raw(at, end))]
        return [Row(place, dict(zip(columns, cells, strict=True)))]

    def _is_blank(self, lines: _Lines, at: int) -> bool:
        return not lines.raw(at, at + 1).strip(self._blanks)

    # -- the header ----------------------------------------------------------------------------------------------------

    def _read_header(self) -> Piece:
        """Read lines up to the end of the header, and give those behind it that came along."""
        header = _NOTHING
        for piece in self._pieces:
            if piece is None or (piece.overlong and not piece.data and not header.data):
                continue
            header = _join(header, [piece.data]) if header.data else _without_blank_lines(piece)
            end = _header_end(header.data)
            if piece.overlong or (end or len(header.data)) > self._max_row:
                self._refuse_header(header)
            if end:
                return self._take_header(header, end)
        if header.data:
            raise SourceError(f"{self._name}, line {header.line}: the header opens a quote and never closes it")
        return header

    def _refuse_header(self, piece: Piece) -> None:
        where, hint = f"{self._name}, line {piece.line}", _LONE_CR if b"\r" in piece.data else "is this CSV?"
        raise SourceError(f"{where}: the header is longer than {self._max_row:,} bytes: {hint}")

    def _take_header(self, piece: Piece, end: int) -> Piece:
        """Take the names from the first `end` bytes of a piece, and give the lines behind the header."""
        where, raw = f"{self._name}, line {piece.line}", piece.data[:end]
        if problem := not_utf8(raw):
            raise SourceError(f"{where}: the header cannot be read: {problem}")
        self._separator = separator_of(raw.decode())
        reader = _Lines(piece._replace(data=raw)).reader(0, None, self._separator, [])
        try:
            cells = next(reader)
        except csv.Error as error:
            hint = f" ({_LONE_CR})" if b"\r" in raw else ""
            raise SourceError(f"{where}: the header is no valid CSV: {error}{hint}") from None
        self.columns = _names(where, cells)
        return _Lines(piece).rest(reader.line_num)


class _Stop(NamedTuple):
    """Where reading stopped, what is wrong there, and whether more lines could cure it."""

    at: int
    problem: str = ""
    cut_off: bool = False


class _Lines:
    """The lines of a piece, by their number in it; `starts` are their offsets, and that of what follows them."""

    def __init__(self, piece: Piece) -> None:
        self.line = piece.line
        self._raw = io.BytesIO(piece.data).readlines()
        self.count = len(self._raw)
        self.starts = list(accumulate(map(len, self._raw), initial=piece.offset))
        self.is_utf8 = True
        # quotes, and a carriage return that ends no line, mean something to `csv.reader`; else lines can just be cut
        self._needs_csv = b'"' in piece.data or piece.data.count(b"\r") > piece.data.count(b"\r\n")
        try:
            self._texts = list(map(bytes.decode, self._raw))
        except UnicodeDecodeError:
            self.is_utf8 = False
            self._texts = [raw.decode(errors="surrogateescape") for raw in self._raw]

    def reader(self, at: int, stop: int | None, separator: str, ended: list[bool]) -> Reader:
        """A reader of the lines from `at` to `stop`; it leaves a mark in `ended` when it asks for more."""

        def end() -> Iterator[str]:
            ended.append(True)
            yield from ()

        return csv.reader(chain(islice(self._texts, at, stop), end()), delimiter=separator, strict=True)

    def records(self, at: int, end: int, separator: str) -> list[list[str]]:
        """The cells of some lines, each taken as a record; none, or csv.Error, where quotes join or break lines.

        The caller compares the numbers of cells: a blank line may have one, where `csv.reader` gives none.
        """
        texts = self._texts[at:end]
        if not self._needs_csv:  # the same as below, in a third of the time
            return [text.rstrip("\r\n").split(separator) for text in texts]
        records = list(csv.reader(texts, delimiter=separator, strict=True))
        return records if len(records) == len(texts) else []

    def place(self, source: str, at: int) -> Position:
        return Position(source, self.line + at, self.starts[at])

    def raw(self, at: int, end: int) -> bytes:
        """The bytes of some lines, with their line feeds."""
        return b"".join(self._raw[at:end])

    def size(self, at: int, end: int) -> int:
        """How many bytes they are, without the last line feed."""
        return self.starts[end] - self.starts[at] - self._raw[end - 1].endswith(b"\n")

    def rest(self, at: int) -> Piece:
        """The lines from `at` on."""
        return Piece(self.line + at, self.starts[at], b"".join(self._raw[at:]))


def separator_of(header: str) -> str:
    """The separator that stands most often in the header, outside quotes; a comma where there is none."""
    outside = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=outside.count)


def _join(piece: Piece, more: list[bytes]) -> Piece:
    return piece._replace(data=b"".join([piece.data, *more])) if more else piece


def _header_end(data: bytes) -> int:
    """How many bytes the header has: up to the first line feed that is not in quotes; 0 where it is not there yet."""
    end = quotes = 0
    for line in io.BytesIO(data):
        end += len(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            return end
    return 0


def _without_blank_lines(piece: Piece) -> Piece:
    """The piece from its first line on that is not blank."""
    blank = len(piece.data) - len(piece.data.lstrip(BLANKS + b"\n"))
    if blank < len(piece.data):
        blank = piece.data.rfind(b"\n", 0, blank) + 1
    return Piece(piece.line + piece.data.count(b"\n", 0, blank), piece.offset + blank, piece.data[blank:])


def _names(where: str, cells: list[str]) -> tuple[str, ...]:
    """The header's names: without white space around them, `column 3` where there is none, and each only once."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if first.setdefault(name, number) != number:
            raise SourceError(
                f"{where}: the header names {name[:80]!r} twice, in columns {first[name]} and {number}: rename one"
            )
    return tuple(names)
