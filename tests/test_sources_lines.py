"""Bytes cut at line feeds: every line once, at its place, in bounded memory, however the bytes come."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.record import RAW_KEPT, Position, Row
from moe_bulk.sources.base import MAX_ROW
from moe_bulk.sources.lines import Piece, Pieces, bad_row, long_rows, not_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TEXTS = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n", b" ", b"\r\n", b"\xff", b"long " * 5])).map(b"".join)
CUTS = st.lists(st.integers(0, 12), max_size=12)


def feeding(chunks: Iterable[bytes | None]) -> Callable[[], bytes | None]:
    """Give a stream that says these things, and then that it has ended, for ever."""
    left = iter(chunks)
    return lambda: next(left, b"")


def cut(data: bytes, sizes: list[int]) -> list[bytes | None]:
    """Cut data into chunks of these sizes; 0 is a pause."""
    chunks: list[bytes | None] = []
    for size in sizes:
        chunks.append(data[:size] or None)
        data = data[size:]
    return [*chunks, data]


def pieces_of(data: bytes, sizes: list[int], max_row: int) -> list[Piece]:
    """Read it all, without the pauses."""
    return [piece for piece in Pieces(feeding(cut(data, sizes)), max_row=max_row) if piece is not None]


def lines_of(pieces: list[Piece]) -> list[tuple[int, int, bytes, int]]:
    """Give each line on its own, with its number, its offset and, if it is too long, its length."""
    lines = []
    for piece in pieces:
        if piece.overlong:
            lines.append((piece.line, piece.offset, piece.data, piece.overlong))
            continue
        offset = piece.offset
        for number, line in enumerate(piece.data.split(b"\n"), piece.line):
            lines.append((number, offset, line, 0))
            offset += len(line) + 1
        if piece.data.endswith(b"\n"):
            lines.pop()
    return lines


@given(TEXTS, CUTS)
def test_every_line_stands_in_one_piece_at_its_place(data: bytes, sizes: list[int]) -> None:
    """Whatever comes however: all bytes are there, in order, and each piece knows where it begins."""
    pieces = pieces_of(data, sizes, 1000)

    assert data == b"".join(piece.data for piece in pieces)
    for piece in pieces:
        assert data[piece.offset :].startswith(piece.data)
        assert data[: piece.offset].count(b"\n") + 1 == piece.line
    assert all(piece.data.endswith(b"\n") for piece in pieces[:-1])


@given(TEXTS, CUTS, st.integers(1, 20))
def test_lines_that_are_too_long_do_not_depend_on_how_the_bytes_come(
    data: bytes, sizes: list[int], longest: int
) -> None:
    """Each is told by its beginning and its length; all others are whole."""
    expected = []
    offset = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        over = len(line) > longest
        shown = (line[:longest] if line.strip() else b"") if over else line
        expected.append((number, offset, shown, len(line) if over else 0))
        offset += len(line) + 1
    if not expected[-1][2] and not expected[-1][3]:  # nothing stands behind the last line feed
        expected.pop()

    assert expected == lines_of(pieces_of(data, sizes, longest))


def test_lines_are_handed_on_before_more_is_asked_for() -> None:
    """Whoever feeds a row sees it gone before he feeds the next; a pause is passed on."""
    asked = list[bytes]()
    feed = feeding([b"one\n", None, b"tw", b"o\nthree", None])

    def read() -> bytes | None:
        chunk = feed()
        asked.append(chunk or b"")
        return chunk

    pieces = iter(Pieces(read))

    assert Piece(1, 0, b"one\n") == next(pieces)
    assert [b"one\n"] == asked
    assert [None, Piece(2, 4, b"two\n"), None, Piece(3, 8, b"three")] == list(pieces)


def test_reading_can_begin_anywhere() -> None:
    """A run that goes on begins at a later line and offset."""
    assert [Piece(7, 90, b"x\ny\n")] == list(Pieces(feeding([b"x\ny\n"]), line=7, offset=90))


@pytest.mark.parametrize(
    ("length", "overlong"), [(MAX_ROW - 1, 0), (MAX_ROW, 0), (MAX_ROW + 1, MAX_ROW + 1), (3 * MAX_ROW, 3 * MAX_ROW)]
)
@pytest.mark.parametrize("end", [b"\n", b"", b"\nmore\n"])
@pytest.mark.parametrize("block", [100_000, MAX_ROW, 10 * MAX_ROW])
def test_the_boundary_of_too_long(length: int, overlong: int, end: bytes, block: int) -> None:
    """A million bytes are a row, one more is none, with and without a line feed."""
    data = b"x" * length + end
    chunks = [data[at : at + block] for at in range(0, len(data), block)]

    lines = lines_of([piece for piece in Pieces(feeding(chunks)) if piece])

    assert (1, 0, b"x" * (RAW_KEPT if overlong else length), overlong) == lines[0]
    assert ([(2, length + 1, b"more", 0)] if b"more" in end else []) == lines[1:]


def test_a_pause_within_a_line_that_is_too_long_is_passed_on() -> None:
    """Whoever wants to stop gets the chance there too."""
    pieces = list(Pieces(feeding([b"x" * 20, None, b"y", None, b"z\nnext\n"]), max_row=10))

    assert [None, None, Piece(1, 0, b"x" * 10, 22), Piece(2, 23, b"next\n")] == pieces


@pytest.mark.parametrize("chunks", [[b" " * 30, b"\t\r\nnext\n"], [b" " * 30 + b"\t\r\nnext\n"]])
def test_a_blank_line_that_is_too_long_is_still_blank(chunks: list[bytes]) -> None:
    """It has no beginning to show, and is no row."""
    pieces = list(Pieces(feeding(chunks), max_row=10))

    assert [Piece(1, 0, b"", 32), Piece(2, 33, b"next\n")] == pieces
    assert isinstance(pieces[0], Piece)
    assert [] == long_rows("f", pieces[0], 10)


def test_a_line_without_end_needs_little_memory() -> None:
    """Fifty megabytes without a line feed are read past without being held."""
    block = b"x" * 250_000
    pieces = Pieces(feeding([block] * 200))

    tracemalloc.start()
    try:
        found = list(pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert [Piece(1, 0, b"x" * RAW_KEPT, 50_000_000)] == found
    assert peak < 5_000_000


def test_a_long_row_says_how_long_it_is_and_keeps_its_beginning() -> None:
    """People find the row by its place, and see what it began with."""
    row = long_rows("f.csv", Piece(3, 70, b"begin", 2_000_000), MAX_ROW)[0]

    assert Position("f.csv", 3, 70) == row.position
    assert row.problem == "the line has 2,000,000 bytes, and a row may have 1,000,000"
    assert (b"begin", 2_000_000) == (row.raw, row.raw_bytes)


@pytest.mark.parametrize(
    ("raw", "kept", "length"),
    [(b"a;b\r\n", b"a;b", 3), (b"a;b\n", b"a;b", 3), (b"a;b", b"a;b", 3), (b"x" * 70_000, b"x" * RAW_KEPT, 70_000)],
)
def test_a_bad_row_keeps_its_bytes_without_the_line_end(raw: bytes, kept: bytes, length: int) -> None:
    """As many of them as a dead letter holds."""
    place = Position("f", 1, 0)
    assert Row(place, None, "bad", kept, length) == bad_row(place, "bad", raw)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"plain", None),
        ("müller".encode(), None),
        (b"m\xfcller", "byte 2 of the row (0xfc) is not UTF-8: export the file as UTF-8"),
        (b"ab\xc3", "byte 3 of the row (0xc3) is not UTF-8: export the file as UTF-8"),
    ],
)
def test_the_first_byte_that_is_not_utf8_is_named(raw: bytes, problem: str | None) -> None:
    """With its place and value, so that it can be found in an editor."""
    assert problem == not_utf8(raw)
