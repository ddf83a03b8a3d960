"""Reading goes on at any row: what comes from there is the rest of a whole reading, and nothing before it is needed."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import strategies as st

from moe_bulk.errors import SourceError
from moe_bulk.record import Position, Row
from moe_bulk.sources import Spool, open_raw, opening
from moe_bulk.sources.base import MAX_ROW
from moe_bulk.sources.doors import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from moe_bulk.sources.opening import Readable

GIGABYTE = 1 << 30

CELLS = [
    b"a",
    b'"',
    b'"',
    b'""',
    b",",
    b",",
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\xff",
    "é".encode(),
    b'b"c',
    b"1,2\n",
]
LINES = [b'\nx","y\n', b"x" * 30, b'a,"' + b"x\n" * 15, b'"' + b"y" * 30 + b'"', b"\n" * 3, b" " * 30, b'1,"2\n3"\n']
HEADERS = [b"a,b\n", b"\xef\xbb\xbfa,b\r\n", b"\n \r\na,b\n", b'\xef\xbb\xbf"a\n\n",b\n', b"a\n", b"a;b\n", b"", b"a,b"]
CSV = st.builds(
    lambda header, body: header + b"".join(body),
    st.sampled_from(HEADERS),
    st.lists(st.sampled_from(CELLS + LINES), max_size=40),
)
OBJECTS = [
    b'{"a":1}',
    b'{"a":"\\n"}',
    b"\n",
    b"\n",
    b"\r\n",
    b"{",
    b'{"a":"\xff"}',
    b" ",
    b"[1]",
    b'{"a":1.10}',
    b"x" * 30,
]
NDJSON = st.builds(
    lambda mark, body: mark + b"".join(body),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.sampled_from(OBJECTS), max_size=40),
)
BLOCKS = st.integers(1, 50)
LONGEST = st.integers(8, 40) | st.just(MAX_ROW)
CUTS = st.lists(st.integers(0, 20), max_size=8)


class Pipe:
    """A stream that gives chunks of these sizes, where 0 is a pause, and then the rest."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._left = data
        self._sizes = sizes[::-1]

    def ready(self, _seconds: float) -> bool:
        """False once at each pause."""
        if self._sizes and self._sizes[-1] == 0:
            self._sizes.pop()
            return False
        return True

    def read(self, size: int, /) -> bytes | None:
        """The next chunk."""
        many = min(size, self._sizes.pop() if self._sizes else size)
        data, self._left = self._left[:many], self._left[many:]
        return data

    def close(self) -> None:
        """There is nothing to close."""


class Hasty(Pipe):
    """One that cannot be waited for, and says at a pause that it has nothing yet."""

    ready = None  # type: ignore[assignment]  # there is none

    def read(self, size: int, /) -> bytes | None:
        """The next chunk, or none."""
        if self._sizes and self._sizes[-1] == 0:
            self._sizes.pop()
            return None
        return super().read(size)


class Counting(io.FileIO):
    """A file that counts what is read of it."""

    seen = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count."""
        data = super().read(size) or b""
        self.seen += len(data)
        return data


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """A file to be written again and again."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "rows")


def rows(
    raw: Readable | str,
    format: str,  # noqa: A002  the option's name
    start: tuple[int, int] | None = None,
    *,
    block: int = 1000,
    max_row: int = MAX_ROW,
) -> list[Row]:
    """Read it all, of a file or a stream."""
    name, stream = (raw, None) if isinstance(raw, str) else ("-", raw)
    source = open_source(name, format, stream, block=block, max_row=max_row, label="f", start=start)
    with closing(source):
        return [row for batch in source.batches() for row in batch]


def each_start(data: bytes, whole: list[Row]) -> Iterator[tuple[tuple[int, int], list[Row]]]:
    """The place of every row and of the end, and the rows that are to come from there on."""
    for index, row in enumerate(whole):
        yield (row.position.line, row.position.offset), whole[index:]
    if data.endswith(b"\n"):
        yield (data.count(b"\n") + 1, len(data)), []


def check(data: bytes, reading: Callable[..., list[Row]], **how: int) -> None:
    """Whatever row of it reading begins with, the rows are those of a whole reading."""
    try:
        whole = reading(None, **how)
    except SourceError:  # a header of no use
        return
    for start, expected in each_start(data, whole):
        assert expected == reading(start, **how)


# -- the rest of a whole reading ---------------------------------------------------------------------------------------


@given(CSV, BLOCKS, LONGEST)
@example(b'a,b\n1,"2\n3,4\n5,"6\n7"\n', 5, 12)
@example(b'a,b\n1,"2\nx","y\n3,4\n5"\n6,7\n', 9, 20)  # two quotes that are open at once, the first one for too long
def test_a_csv_file_is_read_on_from_any_row(path: Path, data: bytes, block: int, longest: int) -> None:
    """Open quotes, quoted newlines, lines that are too long, blank ones, BOM, CRLF, what is not UTF-8."""
    path.write_bytes(data)
    check(data, lambda start, **how: rows(str(path), "csv", start, **how), block=block, max_row=longest)


@given(NDJSON, BLOCKS, LONGEST)
@example(b'BZh91AX\n{"a":1}\n', 1, 40)
def test_an_ndjson_file_is_read_on_from_any_row(path: Path, data: bytes, block: int, longest: int) -> None:
    """Whatever stands before it."""
    path.write_bytes(data)
    check(data, lambda start, **how: rows(str(path), "ndjson", start, **how), block=block, max_row=longest)


@given(st.tuples(st.just("csv"), CSV) | st.tuples(st.just("ndjson"), NDJSON), BLOCKS, LONGEST)
def test_a_compressed_file_is_read_on_from_any_row(
    path: Path, content: tuple[str, bytes], block: int, longest: int
) -> None:
    """All of it is decompressed for that; places are those of what is in it."""
    format, data = content  # noqa: A001  the option's name
    path.write_bytes(gzip.compress(data, 1))
    check(data, lambda start, **how: rows(str(path), format, start, **how), block=block, max_row=longest)


@given(
    st.tuples(st.just("csv"), CSV) | st.tuples(st.just("ndjson"), NDJSON), CUTS, LONGEST, st.sampled_from([Pipe, Hasty])
)
def test_a_pipe_is_read_on_from_any_row(
    content: tuple[str, bytes], sizes: list[int], longest: int, pipe: type[Pipe]
) -> None:
    """However it is fed: in this many bytes, with these pauses."""
    format, data = content  # noqa: A001  the option's name
    check(data, lambda start, **how: rows(pipe(data, sizes), format, start, **how), max_row=longest)


@given(CSV, CUTS, st.sampled_from([gzip.compress, zstd.compress]))
def test_a_compressed_pipe_is_read_on_from_any_row(
    data: bytes, sizes: list[int], pack: Callable[[bytes], bytes]
) -> None:
    """`zstd -c devices.csv | moe-bulk upload -`."""
    packed = pack(data)
    check(data, lambda start, **how: rows(Pipe(packed, sizes), "csv", start, **how), block=20)


def test_a_batch_more_or_less_changes_nothing(path: Path) -> None:
    """Rows come in lists of 500, and blocks of bytes end anywhere in them."""
    data = b"a,b\n" + b"".join(b'%d,"x\n%d"\n' % (number, number) if number % 7 else b'"\n' for number in range(1700))
    path.write_bytes(data)
    whole = rows(str(path), "csv", block=997)

    assert 1700 == len(whole)
    for index in (1, 499, 500, 501, 1234, 1699):
        place = whole[index].position
        assert whole[index:] == rows(str(path), "csv", (place.line, place.offset), block=997)


# -- seeking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head", "line", "row"),
    [
        ("f.csv", b"\xef\xbb\xbfa,b\n", b"1,2\n", {"a": "1", "b": "2"}),
        ("f.ndjson", b"{}\n", b'{"a":"1"}\n', {"a": "1"}),
    ],
)
def test_what_stands_before_it_is_not_read(
    tmp_path: Path, name: str, head: bytes, line: bytes, row: dict[str, object]
) -> None:
    """A plain file of gigabytes: its beginning is looked at, and then what is asked for."""
    offset = 5 * GIGABYTE
    with (tmp_path / name).open("wb") as file:
        file.write(head)
        file.truncate(offset)
        file.seek(offset)
        file.write(line * 3)
    raw = Counting(str(tmp_path / name))
    source = open_source(tmp_path / name, "auto", raw, start=(50_000_000, offset), block=1000)
    found = [each for batch in source.batches() for each in batch]

    label = str(tmp_path / name)
    assert [Row(Position(label, 50_000_000 + at, offset + at * len(line)), row) for at in range(3)] == found
    assert raw.seen <= 2000
    assert (offset + 3 * len(line),) * 2 == source.progress()
    raw.close()


def test_a_compressed_file_is_read_whole(tmp_path: Path) -> None:
    """Nothing else is possible, and its progress says so."""
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 50_000))
    raw = Counting(str(tmp_path / "f.csv.gz"))
    source = open_source("f.csv.gz", "auto", raw, start=(50_001, 100_000))

    assert [[Row(Position("f.csv.gz", 50_001, 100_000), {"a": "1"})]] == list(source.batches())
    assert (raw.seen, raw.seen) == source.progress()
    raw.close()


def test_a_redirected_file_that_was_read_in_part_begins_where_it_was_left(tmp_path: Path) -> None:
    """`(head -n 1; moe-bulk upload -) < devices.csv`: places are counted from there."""
    (tmp_path / "f").write_bytes(b"left out\na,b\n1,2\n3,4\n")
    with io.FileIO(str(tmp_path / "f")) as raw:
        raw.seek(9)
        assert [Row(Position("f", 3, 8), {"a": "3", "b": "4"})] == rows(raw, "csv", (3, 8))


def test_a_place_before_the_first_row_is_the_beginning(path: Path) -> None:
    """A run that was stopped before its first row goes on at (1, 0)."""
    path.write_bytes(b"\xef\xbb\xbfa\n1\n")
    whole = rows(str(path), "csv")

    assert [Row(Position("f", 2, 5), {"a": "1"})] == whole
    assert whole == rows(str(path), "csv", (1, 0))


def test_a_label_is_what_positions_say(path: Path) -> None:
    """Messages name what was opened."""
    path.write_bytes(b"a\n1\n")
    source = open_source(path, "csv", label="devices.csv")

    assert ["devices.csv"] == [row.position.source for batch in source.batches() for row in batch]
    assert "devices.csv" == source.name
    source.close()


# -- skipping ----------------------------------------------------------------------------------------------------------


def test_pauses_are_told_while_it_is_read_past() -> None:
    """Whoever reads may want to stop then."""
    pipe = Pipe(b"column\n" + b"1\n" * 10, [5, 0, 4, 0, 4, 0, 4, 0])
    source = open_source("-", "csv", pipe, start=(8, 19), block=5)
    found = list(source.batches())

    assert [[], [], []] == found[:3]
    assert [8, 9, 10, 11] == [row.position.line for batch in found[3:] for row in batch]


def test_a_stream_that_ends_before_the_place_has_no_rows() -> None:
    """Another stream, which its fingerprint should have told."""
    assert [] == rows(Pipe(b"a\n1\n", []), "csv", (900, 5000))
    assert [] == rows(Pipe(b"a\n1\n", [1, 0, 1]), "ndjson", (900, 5000))


def test_a_stream_whose_descriptor_is_no_use_is_read_past() -> None:
    """Somebody's object that says it has one."""

    class Odd(io.BytesIO):
        def fileno(self) -> int:
            return 1 << 20

    assert [Row(Position("f", 3, 5), {"a": "3"})] == rows(Odd(b"a\n12\n3\n"), "csv", (3, 5))


def test_a_damaged_file_is_an_error_there_too(tmp_path: Path) -> None:
    """Before the place as behind it."""
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b"a\n" + os.urandom(50_000).hex().encode() + b"\n1\n")[:-3000])
    with pytest.raises(SourceError, match="cannot be read on: it is damaged or cut off"):
        rows(str(tmp_path / "f.csv.gz"), "csv", (3, 100_003))


def test_a_stream_that_was_compared_is_read_on_from_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fed again from its beginning, read as far as it is known, rewound and read past."""
    monkeypatch.setattr(opening, "POLL_SECONDS", 0.001)
    data = b"a,b\n" + b"".join(b"%d,x\n" % number for number in range(2000))
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, data)
    spool = Spool(open_raw(str(tmp_path / "fifo")), tmp_path)
    os.close(writer)
    compared = spool.read(5000)
    spool.rewind()
    spool.forget()
    source = open_source(tmp_path / "fifo", "csv", spool, label="stdin", start=(1002, data.index(b"1000,")))
    found = [row for batch in source.batches() for row in batch]
    spool.close()

    assert data[:5000] == compared
    assert [str(number) for number in range(1000, 2000)] == [(row.fields or {})["a"] for row in found]
    assert Position("stdin", 1002, data.index(b"1000,")) == found[0].position
