"""CSV: what a writer wrote is read back, and damage stays where it is."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moe_bulk.errors import SourceError
from moe_bulk.record import Position, Row
from moe_bulk.sources import delimited
from moe_bulk.sources.base import MAX_BATCH, MAX_ROW
from moe_bulk.sources.delimited import Delimited, separator_of
from moe_bulk.sources.lines import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN = "a quote is opened"
SCRAPS = [b"a", b'"', b'"', b'""', b",", b",", b"\n", b"\n", b"\r\n", b"\r", b" ", b";", b"\xff", "é".encode(), b'b"c']
CUTS = st.lists(st.integers(0, 12), max_size=12)
CELLS = st.text(st.sampled_from('ab ,;\t|"\r\né\x0b\u2028'), max_size=6)
WORDS = st.text(st.sampled_from('ab ,;"\n'), max_size=6).map(lambda text: f"x{text}x")


def feeding(data: bytes, sizes: list[int]) -> Callable[[], bytes | None]:
    """Give a stream of chunks of these sizes, where 0 is a pause, and then the rest."""
    chunks: list[bytes | None] = []
    for size in sizes:
        chunks.append(data[:size] or None)
        data = data[size:]
    left = iter([*chunks, data])
    return lambda: next(left, b"")


def source(data: bytes, sizes: list[int] | None = None, max_row: int = MAX_ROW) -> Delimited:
    """Open it."""
    return Delimited("f", Pieces(feeding(data, sizes or []), max_row=max_row))


def rows(data: bytes, sizes: list[int] | None = None, max_row: int = MAX_ROW) -> list[Row]:
    """Read it all."""
    return [row for batch in source(data, sizes, max_row).batches() for row in batch]


def cells(found: list[Row]) -> list[list[object] | None]:
    """Give the cells of good rows, None for bad ones."""
    return [list(row.fields.values()) if row.fields is not None else None for row in found]


def written(records: list[list[str]], **how: object) -> bytes:
    """Write records as `csv` does."""
    text = io.StringIO(newline="")
    csv.writer(text, **how).writerows(records)  # type: ignore[arg-type]  # the options of csv, whichever
    return text.getvalue().encode()


@given(
    st.sampled_from([b"a,b\n", b"a\tb\n", b"a\n"]),
    st.lists(st.one_of(st.just(b"x,y\n"), st.lists(st.sampled_from(SCRAPS), max_size=6).map(b"".join)), max_size=60),
    CUTS,
    st.integers(2, 5),
)
@example(b"a\n", [b"x\n", b"  \n"], [], 2)
@example(b"a\tb\n", [b"x\ty\n", b"\t\n"], [], 2)
@example(b"a,b\n", [b"x,y\r\n", b"x,\r\n"], [], 2)
@example(b"a,b\n", [b"x, y \t\x0b\x1c\n", "x,y\x85\u2028 \n".encode()], [], 2)
@example(b"a,b\n", [b"x,y\r\n", b"x\ry,z\n", b"x,y\n", b",\n", b"x,y\n", b"x,y\n"], [], 3)
@example(b"a,b\n", [b"x,y\n", b'"x",y\r\n', b'x,"y\n', b'z"\n', b"\n", b"x,y"], [4, 9], 2)
def test_plain_lines_are_read_as_with_a_closer_look(
    header: bytes, lines: list[bytes], sizes: list[int], at_once: int
) -> None:
    """Many lines at a time give the rows, with their places and problems, that come of looking at each."""
    data = header + b"".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "MAX_BATCH", at_once)
        many = rows(data, sizes)
        patch.setattr(Delimited, "_read_plain", lambda *_: [])
        assert rows(data, sizes) == many


def test_plain_lines_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what makes it fast: the closer look begins with the first batch in which a line is no row by itself."""
    looked: list[int] = []
    read = Delimited._read

    def counted(self: Delimited, lines: Any, at: int, batch: list[Row], *, alone: bool) -> Any:
        looked.append(at)
        return read(self, lines, at, batch, alone=alone)

    monkeypatch.setattr(Delimited, "_read", counted)
    plain = b"x,y\n" * (3 * MAX_BATCH)
    assert 3 * MAX_BATCH == len(rows(b"a,b\n" + plain))
    assert [] == looked
    assert 6 * MAX_BATCH + 1 == len(rows(b"a,b\n" + plain + b'x,"y\nz"\n' + plain))
    assert 3 * MAX_BATCH == looked[0]


@given(st.one_of(st.binary(), st.lists(st.sampled_from(SCRAPS)).map(b"".join)))
def test_arbitrary_bytes_are_rows_or_a_source_error(data: bytes) -> None:
    """Nothing else is ever raised, and every row is either good or has a problem."""
    found = list[Row]()
    with suppress(SourceError):
        found = rows(data)
    assert all((row.fields is None) != (row.problem is None) for row in found)


@given(st.lists(st.sampled_from(SCRAPS), max_size=40).map(b"".join), CUTS, st.integers(6, 40))
@example(b'a,"b\na,b\na,b\n', [4, 0, 3], 20)
def test_every_line_behind_the_header_is_accounted_for_once(data: bytes, sizes: list[int], longest: int) -> None:
    """From one row's first byte to the next one's stand that row and blank lines, however the bytes come."""
    head = b"\xc3\xa4,b\n"
    found = rows(head + data, sizes, longest)

    blanks = b" \t\r\n"
    starts = [row.position.offset for row in found]
    ends = [*starts, len(head + data)]
    assert starts == sorted(set(starts))
    assert b"" == (head + data)[len(head) : ends.pop(0)].strip(blanks)
    for row, start, end in zip(found, starts, ends, strict=True):
        assert (head + data)[:start].count(b"\n") + 1 == row.position.line
        text = (head + data)[start:end]
        if row.fields is None:
            assert text.startswith(row.raw)
            assert b"" == text[row.raw_bytes :].strip(blanks)
        else:
            records = [
                r
                for r in csv.reader(io.StringIO(text.decode(), newline="\n"), strict=True)
                if "".join(r).strip() or len(r) > 1
            ]
            assert [list(row.fields.values())] == records
            assert len(text.rstrip(blanks)) <= longest
    assert rows(head + data, [], longest) == found


@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
    CUTS,
)
def test_what_a_writer_wrote_is_read_back(
    records: list[list[str]], separator: str, quoting: int, end: str, sizes: list[int]
) -> None:
    """All ways of quoting, all separators, both line ends, cells that hold all of them."""
    header = [["one", "two", "three"]]
    # csv quotes what its line end holds, and this reader ends lines at LF alone: both ends are quoted always.
    data = written(header + records, delimiter=separator, quoting=quoting, lineterminator="\r\n")
    if end == "\n" and "\r" not in "".join(map("".join, records)):
        data = data.replace(b"\r\n", b"\n")
        records = [[cell.replace("\r\n", "\n") for cell in record] for record in records]

    found = rows(data, sizes)

    blank = [list(record) for record in records if separator.join(record).strip(" \t\r\n".replace(separator, ""))]
    assert blank == cells(found) or records == cells(found)


@given(st.lists(WORDS), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_a_single_column_is_read_back(words: list[str], quoting: int) -> None:
    """It has no separator at all, and blank lines are no rows there either; a quoted empty cell is one."""
    data = written([["only"], *([word] for word in words)], quoting=quoting)

    assert [[word] for word in words] == cells(rows(data + b"\r\n  \r\n"))
    assert [[""]] == cells(rows(b'only\n""\n'))


DAMAGED = [
    b'damaged,"never closed',
    b'"damaged,never closed',
    b'damaged,never closed"x,"',
    b'damaged,"closed" too early',
    b'"damaged","never closed',
    b"damaged",
    b"damaged,with,three",
    b'damaged,"two ""quotes"", then none',
    b"dam\xe4ged,x",
    b"damaged,\rcarriage return",
]
"""None of them ends in a quote: one that does may be the end of a cell that an earlier one opened, nobody can tell."""


@given(
    st.lists(st.lists(WORDS, min_size=2, max_size=2), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(DAMAGED)), max_size=4),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    CUTS,
)
def test_damage_harms_its_own_line_only(
    records: list[list[str]], damage: list[tuple[int, bytes]], quoting: int, sizes: list[int]
) -> None:
    """Wherever damaged lines stand, and however many: each is one bad row, and all other rows are read."""
    good = [(written([record], quoting=quoting, lineterminator="\n"), record) for record in records]
    lines: list[tuple[bytes, list[str] | None]] = [*good]
    for place, line in damage:
        lines.insert(place, (line + b"\n", None))

    found = rows(b"one,two\n" + b"".join(line for line, _ in lines), sizes)

    assert [record for _, record in lines] == cells(found)
    assert [line[:-1] for line, record in lines if record is None] == [row.raw for row in found if row.fields is None]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'"a","b"\n"1","2\n"3","4"\n"5","6"\n', [None, ["3", "4"], ["5", "6"]]),
        (b'a,b\n1,2\n3,"4', [["1", "2"], None]),
        (b'a,b\n1,"2\n3,"4\n5,"6\n7,8\n', [None, None, None, ["7", "8"]]),
        (b'a,b\n1,"2\n3,4\n5,"6"\n', [None, ["3", "4"], ["5", "6"]]),
        (b'a,b\n"1,2\n3,4\n\n5,6\n', [None, ["3", "4"], ["5", "6"]]),
        (b'a,b\n1,"\n2,3\n4,"5\n6"\n', [None, ["2", "3"], ["4", "5\n6"]]),
        (b'a,b\n1,"2 \xff\n3,\xff\n4,5\n', [None, None, ["4", "5"]]),
    ],
)
def test_a_quote_left_open_swallows_nothing(data: bytes, expected: list[list[str] | None]) -> None:
    """It is its line's fault; the next line begins a row."""
    found = rows(data)

    assert expected == cells(found)
    assert str(found[expected.index(None)].problem).startswith((OPEN, "not valid CSV"))


@pytest.mark.parametrize("end", [b"", b'8,"9"\n', b'8,"9\n10"\n'])
def test_a_quote_left_open_before_more_than_a_row_may_have(end: bytes) -> None:
    """Nothing closes it for megabytes: it is given up after a million bytes, and all the rows are read."""
    line = b"12345678,abcdefgh\n"
    count = 2_500_000 // len(line)
    data = b'a,b\n1,"2\n' + line * count + end

    found = rows(data, [250_000] * 20)

    assert [None] == cells(found[:1])
    assert str(found[0].problem).startswith(OPEN)
    assert [["12345678", "abcdefgh"]] * count == cells(found[1 : count + 1])
    assert (1 if end else 0) == len(found) - 1 - count


def test_quotes_that_toggle_do_not_take_for_ever() -> None:
    """Lines that each open a quote anew are the worst there is: still a matter of seconds, in square time of hours."""
    data = b"a,b\n" + b'x",",z\n' * 20_000

    assert [None] * 20_000 == cells(rows(data))


@pytest.mark.parametrize(
    ("text", "longest", "good"),
    [(b'1,"' + b"x\n" * 8 + b'"', 20, True), (b'1,"' + b"x\n" * 8 + b'y"', 20, False)],
)
@pytest.mark.parametrize("sizes", [[], [5, 5, 5, 5], [0, 9, 0, 9]])
def test_a_row_of_several_lines_has_a_limit_too(text: bytes, longest: int, sizes: list[int], *, good: bool) -> None:
    """The same one as a single line, wherever the blocks end."""
    found = rows(b"a,b\n" + text + b"\n", sizes, longest)

    assert good == (found[0].fields is not None)
    assert good == (len(found) == 1)


def test_a_line_that_is_too_long_ends_what_was_open_before_it() -> None:
    """It is a bad row itself; the quote before it cannot close behind it."""
    data = b'a,b\n1,"2\n3,4\n' + b"x" * 60 + b'\n5,6"\n' + b" " * 60 + b"\n7,8\n"

    found = rows(data, max_row=50)

    assert [None, ["3", "4"], None, ["5", '6"'], ["7", "8"]] == cells(found)
    assert [2, 3, 4, 5, 7] == [row.position.line for row in found]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"1", "the row has 1 cells, the header has 2"),
        (b"1,2,3", "the row has 3 cells, the header has 2"),
        (b"1,2\r3", "not valid CSV: new-line character"),
        (b'1,"2"3', "not valid CSV: ',' expected after"),
        (b"1,\xfc", "byte 3 of the row (0xfc) is not UTF-8"),
        (b"\xfc", "byte 1 of the row (0xfc) is not UTF-8"),
        (b'1,"2\n\xfc"', "byte 6 of the row (0xfc) is not UTF-8"),
    ],
)
def test_a_bad_row_tells_why_and_keeps_its_bytes(row: bytes, problem: str) -> None:
    """Ragged rows are never repaired."""
    before, bad, after = rows(b"a,b\r\n0,0\r\n" + row + b"\r\n9,9\r\n")

    assert [["0", "0"], ["9", "9"]] == cells([before, after])
    assert str(bad.problem).startswith(problem)
    assert (row, len(row)) == (bad.raw, bad.raw_bytes)
    assert Position("f", 3, 10) == bad.position


def test_blank_lines_are_no_rows() -> None:
    """Not before the header, not between rows, not at the end; a row of empty cells is one."""
    found = rows(b"\n \r\na,b\n\n1,2\n \r \n\t\n,\n\n\n")

    assert [["1", "2"], ["", ""]] == cells(found)
    assert [5, 8] == [row.position.line for row in found]
    assert [["", ""]] == cells(rows(b"a\tb\n \t\n \n".replace(b" ", b"")))


def test_an_empty_line_within_quotes_belongs_to_the_row() -> None:
    """Notes have paragraphs."""
    assert [["1", "x\n\n\ny"]] == cells(rows(b'a,b\n1,"x\n\n\ny"\n'))


def test_batches_are_bounded_and_pauses_are_passed_on() -> None:
    """Rows come as they are fed: what is complete is given before the pause, an open record stays open behind it."""
    data = b'a,b\n1,2\n3,"4\n5"\n' + b"6,7\n" * (2 * MAX_BATCH + 1)
    batches = list(source(data, [4, 0, 4, 0, 5, 0]).batches())

    assert [0, 1, 0, 0, MAX_BATCH, MAX_BATCH, 2] == [len(batch) for batch in batches]
    assert {"a": "3", "b": "4\n5"} == batches[4][0].fields


def test_a_record_that_came_slowly_is_given_at_the_pause() -> None:
    """It is not read again at every piece, but a pause is a good time."""
    data = b'a,b\n1,"' + b"x\n" * 50 + b'"\n2,3\n'
    sizes = [60, *[2] * 30, 0, 1, 0]

    found = [len(batch) for batch in source(data, sizes).batches()]

    assert 2 == sum(found)
    assert [["1", "x\n" * 50], ["2", "3"]] == cells(rows(data, sizes))


# -- the header --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        (b"a,b\n", ("a", "b")),
        (b"a,b", ("a", "b")),
        (b" a ; b \r\n", ("a", "b")),
        (b"a\tb\n", ("a", "b")),
        (b"a|b\n", ("a", "b")),
        (b"only\n", ("only",)),
        (b'"a,x";"b"\n', ("a,x", "b")),
        (b'"a\nx";"b\ny";c\n1;2;3\n', ("a\nx", "b\ny", "c")),
        (b"a,,c,\n", ("a", "column 2", "c", "column 4")),
        ("müller,ß\n".encode(), ("müller", "ß")),
        (b"", None),
        (b"\n \r\n\n", None),
    ],
)
@pytest.mark.parametrize("sizes", [[], [1] * 12, [0, 3, 0]])
def test_the_header_names_the_columns(data: bytes, columns: tuple[str, ...] | None, sizes: list[int]) -> None:
    """Four separators, quotes, names without the white space around them; an empty file has none and no rows."""
    assert columns == source(data, sizes).columns


@pytest.mark.parametrize(
    ("header", "separator"), [("a,b;c,d", ","), ("a;b;c,d", ";"), ("a", ","), ('"a;b;c",d', ","), ("", ",")]
)
def test_the_separator_stands_most_often_outside_quotes(header: str, separator: str) -> None:
    """A comma where nothing tells."""
    assert separator == separator_of(header)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\na,b,a\n", r"^f, line 2: the header names 'a' twice, in columns 1 and 3: rename one$"),
        (b'a,"b\n1,2\n', r"^f, line 1: the header opens a quote and never closes it$"),
        (b'a,"b"c\n', r"^f, line 1: the header is no valid CSV: ',' expected after '\"'$"),
        (
            b"a,b\r1,2\r3,4\r",
            r"^f, line 1: the header is no valid CSV: new-line.*tr '\\r' '\\n' < OLD > NEW helps\)$",
        ),
        (b"m\xfcller,b\n", r"^f, line 1: the header cannot be read: byte 2 of the row \(0xfc\) is not UTF-8"),
        (b"x" * 60 + b"\n", r"^f, line 1: the header is longer than 50 bytes: is this CSV\?$"),
        (b"a,b\r1,2\r" * 10, r"^f, line 1: the header is longer than 50 bytes: where CR alone ends the lines, tr"),
        (b'a,"b\n' + b"c\n" * 40, r"^f, line 1: the header is longer than 50 bytes"),
        (b'a,"b\n' + b"x" * 60 + b"\n", r"^f, line 1: the header is longer than 50 bytes"),
    ],
)
@pytest.mark.parametrize("sizes", [[], [1] * 70])
def test_a_header_that_is_of_no_use_is_refused(data: bytes, message: str, sizes: list[int]) -> None:
    """Before anything is sent, with its line and what to do."""
    with pytest.raises(SourceError, match=message):
        source(data, sizes, max_row=50)


def test_a_blank_line_that_is_too_long_before_the_header_is_nothing() -> None:
    """As any other blank line."""
    assert ("a", "b") == source(b" " * 60 + b"\na,b\n", max_row=50).columns
