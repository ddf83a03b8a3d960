"""The door to all sources: the right format for whatever is named, and nothing left open when it is refused."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position
from moe_bulk.sources import opening
from moe_bulk.sources.doors import open_source

if TYPE_CHECKING:
    from moe_bulk.sources import Source

CSV = b"a,b\n1,2\n"
NDJSON = b'{"a":"1","b":"2"}\n'
ROWS: list[dict[str, object] | None] = [{"a": "1", "b": "2"}]


def fields(source: Source) -> list[dict[str, object] | None]:
    """Read it all and close it."""
    found = [row.fields for batch in source.batches() for row in batch]
    source.close()
    return found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", CSV),
        ("rows.CSV", CSV),
        ("rows.tsv", CSV.replace(b",", b"\t")),
        ("rows.txt", CSV.replace(b",", b"|")),
        ("rows.csv.gz", gzip.compress(CSV, mtime=0)),
        ("rows.csv.zst", zstd.compress(CSV)),
        ("rows.gz", gzip.compress(NDJSON, mtime=0)),
        ("rows.ndjson", NDJSON),
        ("rows.jsonl", NDJSON),
        ("rows.json", NDJSON),
        ("rows.jsonl.gz", gzip.compress(NDJSON, mtime=0)),
        ("rows", CSV),
        ("rows", NDJSON),
        ("rows.2026-11-23", b"\n\n" + NDJSON),
        ("rows", b"\xef\xbb\xbf" + NDJSON),
        ("rows", b"\xef\xbb\xbf" + CSV),
        ("two:rows?.csv", CSV),
    ],
)
def test_the_format_is_found_by_the_ending_or_else_by_the_content(tmp_path: Path, name: str, content: bytes) -> None:
    """Compressed or not; `columns` are known where there is a header."""
    (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path / name)

    assert (("a", "b") if b"a,b" in content or b"a\tb" in content or source.columns else None) == source.columns
    assert str(tmp_path / name) == source.name
    assert ROWS == fields(source)
    assert (len(content), len(content)) == source.progress()


@pytest.mark.parametrize(("format", "name", "content"), [("csv", "rows.json", CSV), ("ndjson", "rows.csv", NDJSON)])
def test_a_format_that_is_named_is_taken(tmp_path: Path, format: str, name: str, content: bytes) -> None:  # noqa: A002  the option's name
    """Whatever the ending says."""
    (tmp_path / name).write_bytes(content)
    assert ROWS == fields(open_source(str(tmp_path / name), format))


def test_a_format_that_does_not_exist_is_a_mistake_in_the_settings() -> None:
    """Said before anything is opened."""
    with pytest.raises(ConfigError, match="there is no format 'xml': use csv, ndjson, parquet or auto"):
        open_source("nowhere", "xml")


@pytest.mark.parametrize("content", [b'[{"a":1}]', b'[\n  {"a": 1},\n', b' [ {"a":1},{"a":2}]\n'])
def test_one_array_of_objects_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is no NDJSON; the way out can be typed as it stands there, spaces in the name or not."""
    path = tmp_path / "all rows.json"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"is one JSON array.*jq -c '\.\[\]' '.*/all rows\.json' > NEW\.ndjson$"):
        open_source(path)
    with pytest.raises(SourceError, match=r"stdin is one JSON array.*jq -c '\.\[\]' > NEW\.ndjson$"):
        open_source("-", raw=io.BytesIO(content))


def test_any_other_array_is_a_bad_row() -> None:
    """A line among lines."""
    assert [None, {"a": 1}] == fields(open_source("-", raw=io.BytesIO(b'[1, 2]\n{"a":1}\n')))


def test_what_is_refused_is_closed(tmp_path: Path) -> None:
    """A header of no use leaves no file open; an unclosed one would be an error here."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,a\n")
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(SourceError, match="names 'a' twice"):
        open_source(path)
    assert before == len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize(
    ("content", "columns"), [(b"", None), (b"\n\n", None), (b"a,b\n", ("a", "b")), (b"a,b", ("a", "b"))]
)
def test_a_file_without_rows_has_none(tmp_path: Path, content: bytes, columns: tuple[str, ...] | None) -> None:
    """Empty, blank, or with a header only: nothing to do, no error."""
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    source = open_source(path)

    assert columns == source.columns
    assert [] == fields(source)


def test_offsets_point_into_the_decompressed_file(tmp_path: Path) -> None:
    """A byte order mark counts, and so does the header."""
    path = tmp_path / "rows.gz"
    content = b"\xef\xbb\xbfa;b\r\n1;2\r\n\r\n3;4"
    path.write_bytes(gzip.compress(content))
    source = open_source(path)

    name = str(path)
    assert [Position(name, 2, 8), Position(name, 4, 15)] == [
        row.position for batch in source.batches() for row in batch
    ]
    source.close()


def test_rows_before_the_damage_are_given(tmp_path: Path) -> None:
    """A file that is cut off gives what it has, and then the error."""
    path = tmp_path / "rows.csv.gz"
    content = b"a,b\n" + b"".join(os.urandom(8).hex().encode() + b",x\n" for _ in range(50_000))
    path.write_bytes(gzip.compress(content)[:-1000])
    source = open_source(path)
    found = []

    def read() -> None:
        for batch in source.batches():
            found.extend(batch)

    with pytest.raises(SourceError, match="cannot be read on"):
        read()
    source.close()
    assert 45_000 < len(found) < 50_000
    assert all(row.fields is not None for row in found)


@pytest.mark.parametrize("content", [b"a,b\n1,2\n3,4\n", b'{"a":"1","b":"2"}\n{"a":"3","b":"4"}\n'])
def test_rows_are_passed_on_as_they_are_fed(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input: an empty list is a pause, and closing is possible at each of them."""
    monkeypatch.setattr(opening, "POLL_SECONDS", 0.001)
    read, write = os.pipe()
    with io.FileIO(read) as reader, io.FileIO(write, "w") as writer:
        half = len(content) - content.endswith(b"3,4\n") * 4 - content.endswith(b"}\n") * 18
        writer.write(content[:half])
        source = open_source("-", raw=reader)
        batches = source.batches()
        found = next(batches)
        while (batch := next(batches)) != []:
            found += batch
        assert [Position("stdin", 2 - content.startswith(b"{"), found[0].position.offset)] == [
            r.position for r in found
        ]

        writer.write(content[half:])
        while not (batch := next(batches)):
            pass
        assert [{"a": "3", "b": "4"}] == [row.fields for row in batch]

        source.close()
        source.close()
        with pytest.raises(SourceError, match="stdin was closed before its end"):
            next(batches)
        assert not reader.closed


def test_a_pipe_of_the_shell_is_a_file_to_be_named() -> None:
    """`moe-bulk upload <(zcat rows.csv.gz)` gives `/dev/fd/63`."""
    read, write = os.pipe()
    with io.FileIO(read):
        with io.FileIO(write, "w") as writer:
            writer.write(CSV)
        source = open_source(f"/dev/fd/{read}")
        assert None is source.progress()[1]
        assert ROWS == fields(source)


def test_a_file_name_that_is_no_utf8_can_be_written_in_results(tmp_path: Path) -> None:
    """Linux allows any bytes."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    Path(os.fsdecode(path)).write_bytes(CSV)
    source = open_source(os.fsdecode(path))
    row = next(source.batches())[0]
    source.close()

    assert source.name.endswith("/caf\\udce9.csv")
    assert Result(row.position, Status.INVALID, row).line()


@given(st.binary(max_size=200), st.sampled_from(["auto", "csv", "ndjson"]), st.integers(1, 50), st.integers(1, 100))
def test_arbitrary_bytes_are_rows_or_a_source_error(content: bytes, format: str, block: int, longest: int) -> None:  # noqa: A002  the option's name
    """In any format, cut anyhow: nothing else is raised, and the cuts change nothing."""
    outcomes: list[object] = []
    for size in (block, 1000):
        try:
            source = open_source("-", format, io.BytesIO(content), block=size, max_row=longest)
            outcomes.append([row for batch in source.batches() for row in batch])
        except SourceError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
