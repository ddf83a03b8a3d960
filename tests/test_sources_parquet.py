"""Parquet: typed columns become what rows are made of, read on from any row, and what is no Parquet is told plainly."""

from __future__ import annotations

import gzip
import io
import sys
from base64 import b64encode
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.errors import SourceError
from moe_bulk.record import Position, Row
from moe_bulk.sources import Spool
from moe_bulk.sources.base import MAX_ROW
from moe_bulk.sources.doors import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.sources import Source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(path: Path, table: Any, **how: Any) -> Path:
    """Write a table."""
    pq.write_table(table, path, **how)
    return path


def numbered(count: int) -> Any:
    """Make a table of so many rows."""
    return pa.table({"a": [str(number) for number in range(count)], "b": list(range(count))})


def stored(count: int, **how: Any) -> bytes:
    """Make a Parquet file of so many rows."""
    into = io.BytesIO()
    pq.write_table(numbered(count), into, **how)
    return into.getvalue()


def read(source: Source) -> list[Row]:
    """Read it to its end."""
    with closing(source):
        return [row for batch in source.batches() for row in batch]


def fields(path: Path) -> list[dict[str, object] | None]:
    """Give the values of all rows."""
    return [row.fields for row in read(open_source(path))]


# -- what it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.parquet", "a.PARQUET", "a.pq", "a", "a.csv", "a.parquet.gz"])
def test_it_is_known_by_its_ending_or_its_first_bytes(tmp_path: Path, name: str) -> None:
    """Whatever it is called; even where the whole of it was compressed once more."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(stored(2)) if name.endswith(".gz") else stored(2))
    source = open_source(path)

    assert (("a", "b"), 2) == (source.columns, source.rows)
    assert [
        Row(Position(str(path), 1, 0), {"a": "0", "b": 0}),
        Row(Position(str(path), 2, 1), {"a": "1", "b": 1}),
    ] == read(source)


def test_a_format_that_is_named_and_wrong_is_told(tmp_path: Path) -> None:
    """In both directions."""
    (tmp_path / "a").write_bytes(stored(1))
    (tmp_path / "b").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(SourceError, match="is a Parquet file: leave out --format, or say --format parquet"):
        open_source(tmp_path / "a", "csv")
    with pytest.raises(SourceError, match="is no Parquet file: it does not begin with PAR1"):
        open_source(tmp_path / "b", "parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "cannot be read: it is damaged or cut off"),
        (lambda data: data[:4], "cannot be read: it is damaged or cut off"),
        (lambda data: b"", "is no Parquet file"),
        (lambda data: b"PARE" + data[4:-4] + b"PARE", "is an encrypted Parquet file"),
        (lambda data: data[:30] + bytes(60) + data[90:], "cannot be read on: it is damaged or cut off"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, damage: Any, message: str) -> None:
    """With the way out, before or at the damage."""
    path = tmp_path / "a.parquet"
    path.write_bytes(damage(stored(1000, compression="snappy")))
    with pytest.raises(SourceError, match=message) as told:
        read(open_source(path))
    assert str(told.value).startswith(str(path))


def test_rows_before_the_damage_are_given(tmp_path: Path) -> None:
    """Whole row groups before it are rows like any other."""
    data = stored(3000, row_group_size=1000, compression="none", use_dictionary=False)
    about = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(2).column(0)
    at = about.data_page_offset
    path = tmp_path / "a.parquet"
    path.write_bytes(data[:at] + b"\xff" * 40 + data[at + 40 :])
    source, found = open_source(path), list[Row]()
    with pytest.raises(SourceError, match="The rows before that place were read; get a whole copy"):
        found.extend(row for batch in source.batches() for row in batch)
    source.close()
    assert 2000 == len(found)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_told(tmp_path: Path, plaintext_footer: bool) -> None:  # noqa: FBT001  a table
    """Whether the whole of it is, or columns only, of which an index in plain text tells."""
    encryption: Any = pytest.importorskip("pyarrow.parquet.encryption")
    client: Any = encryption.KmsClient

    class Keys(client):  # type: ignore[misc]  # pyarrow has no types
        def __init__(self, _: object) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, _: str) -> bytes:
            """Wrap nothing."""
            return b64encode(key)

    said = encryption.EncryptionConfiguration(
        footer_key="key", column_keys={"key": ["a"]}, plaintext_footer=plaintext_footer
    )
    factory, table = encryption.CryptoFactory(Keys), numbered(3)
    how = factory.file_encryption_properties(encryption.KmsConnectionConfig(), said)
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=how) as writer:
        writer.write_table(table)

    with pytest.raises(SourceError, match="is an encrypted Parquet file, and keys for it cannot be given"):
        read(open_source(tmp_path / "a.parquet"))


def test_a_page_whose_checksum_is_wrong_is_damaged(tmp_path: Path) -> None:
    """Where the writer left checksums: a flipped bit in an id would be another id."""
    data = stored(9, compression="none", use_dictionary=False, write_page_checksum=True)
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    at = data.rindex(b"8", 0, column.data_page_offset + column.total_compressed_size)
    path = tmp_path / "a.parquet"
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])
    with pytest.raises(SourceError, match="cannot be read on: it is damaged"):
        read(open_source(path))


def test_without_pyarrow_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: most people have CSV."""
    path = write(tmp_path / "a.parquet", numbered(1))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SourceError, match=r"pip install 'moe-bulk\[parquet\]'"):
        open_source(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """A row could hold only one of them."""
    path = write(tmp_path / "a.parquet", pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))
    with pytest.raises(SourceError, match="names the column 'a' twice"):
        open_source(path)


# -- values ------------------------------------------------------------------------------------------------------------

WHEN = datetime(2026, 11, 25, 14, 41, 56, 7000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pa.string(), "0012.50", "0012.50"),
        (pa.large_string(), "é", "é"),
        (pa.string_view(), "view", "view"),
        (pa.dictionary(pa.int8(), pa.string()), "iOS", "iOS"),
        (pa.int8(), -1, -1),
        (pa.uint64(), 2**64 - 1, 2**64 - 1),
        (pa.bool_(), True, True),
        (pa.null(), None, None),
        (pa.float64(), 12345.5, 12345.5),
        (pa.float64(), float("nan"), None),
        (pa.decimal128(20, 0), Decimal(12345678901234567890), "12345678901234567890"),
        (pa.decimal128(5, 2), Decimal("1.10"), "1.10"),
        (pa.decimal256(50, 30), Decimal("0.000000000000000000000000000001"), "0.000000000000000000000000000001"),
        (pa.timestamp("ms", "UTC"), WHEN, "2026-11-25 14:41:56.007Z"),
        (pa.timestamp("ns"), WHEN.replace(tzinfo=None), "2026-11-25 14:41:56.007000000"),
        (pa.date32(), date(2026, 11, 25), "2026-11-25"),
        (pa.time64("ns"), time(1, 2, 3), "01:02:03.000000000"),
        (pa.duration("ns"), timedelta(seconds=1), "1000000000"),
        (pa.binary(), b"text", "text"),
        (pa.binary(), b"\xff\x00", {"base64": "/wA="}),
        (pa.list_(pa.timestamp("ns")), [datetime(1970, 1, 1)], ["1970-01-01 00:00:00.000000000"]),  # noqa: DTZ001
        (pa.large_list(pa.decimal128(3, 1)), [Decimal("1.0"), None], ["1.0", None]),
        (pa.list_(pa.float64(), 2), [1.5, float("nan")], [1.5, None]),
        (pa.struct([("name", pa.string()), ("at", pa.date32())]), {"name": "x", "at": date(2026, 1, 2)},
         {"name": "x", "at": "2026-01-02"}),
        (pa.map_(pa.string(), pa.binary()), [("k", b"v")], {"k": "v"}),
    ],
    ids=str,
)  # fmt: skip
def test_each_type_becomes_what_a_row_has(tmp_path: Path, kind: Any, value: object, expected: object) -> None:
    """Text stays text, digits stay exact, nulls are null, and what is nested stays nested."""
    path = write(tmp_path / "a.parquet", pa.table({"x": pa.array([value, None], kind)}))
    assert [{"x": expected}, {"x": None}] == fields(path)


def test_a_uuid_is_text(tmp_path: Path) -> None:
    """Its usual spelling."""
    if not hasattr(pa, "uuid"):
        pytest.skip("this pyarrow knows no UUIDs")
    which = UUID("5b8a4f5e-0d3f-4c39-9b1d-7b8f3f0a3c11")
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([which.bytes], pa.binary(16)))
    assert [{"x": str(which)}] == fields(write(tmp_path / "a.parquet", pa.table({"x": column})))


def test_text_that_is_not_utf8_harms_its_own_value_only(tmp_path: Path) -> None:
    """Some writers put anything at all into text columns."""
    text = pa.array([b"fine", b"\xff\xfe", None]).view(pa.string())
    nested = pa.StructArray.from_arrays([text], ["y"])
    assert [
        {"x": "fine", "z": {"y": "fine"}},
        {"x": {"base64": "//4="}, "z": {"y": {"base64": "//4="}}},
        {"x": None, "z": {"y": None}},
    ] == fields(write(tmp_path / "a.parquet", pa.table({"x": text, "z": nested})))


def test_nested_columns_are_read_like_ndjson(tmp_path: Path) -> None:
    """Their rows may be in the API's own shape, so the names of the columns tell too little."""
    path = write(tmp_path / "a.parquet", pa.table({"customer_id": ["u"], "attributes": [{"push_id": "t"}]}))
    source = open_source(path)
    assert None is source.columns
    assert [{"customer_id": "u", "attributes": {"push_id": "t"}}] == [row.fields for row in read(source)]


def test_a_category_is_no_nested_column(tmp_path: Path) -> None:
    """What pandas writes for a few names that repeat."""
    column = pa.array(["iOS", "iOS"]).dictionary_encode()
    source = open_source(write(tmp_path / "a.parquet", pa.table({"platform": column})))
    source.close()
    assert ("platform",) == source.columns


def test_a_row_that_is_too_long_is_invalid(tmp_path: Path) -> None:
    """As in any other format; those beside it are not."""
    path = write(tmp_path / "a.parquet", pa.table({"x": ["a", "b" * MAX_ROW, "c"]}))
    found = read(open_source(path))
    assert [{"x": "a"}, None, {"x": "c"}] == [row.fields for row in found]
    assert "the row has 1,000,008 bytes as JSON, and a row may have 1,000,000" == found[1].problem


@pytest.mark.parametrize("table", [numbered(0), pa.table({})])
def test_a_file_without_rows_has_none(tmp_path: Path, table: Any) -> None:
    """With or without columns."""
    source = open_source(write(tmp_path / "a.parquet", table))
    assert ([], (source.progress()[1],) * 2) == (list(source.batches()), source.progress())
    source.close()


# -- where it goes on --------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 15), st.integers(0, 41))
def test_it_is_read_on_from_any_row(count: int, group: int, start: int) -> None:
    """However the rows are grouped."""
    data = io.BytesIO(stored(count, row_group_size=group))
    rows = read(open_source("-", raw=data, label="f", start=(start + 1, start)))
    assert [Row(Position("f", at + 1, at), {"a": str(at), "b": at}) for at in range(start, count)] == rows


def test_row_groups_before_the_place_are_not_read(tmp_path: Path) -> None:
    """They may well be damaged."""
    data = stored(30_000, row_group_size=10_000, compression="none", use_dictionary=False)
    at = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).data_page_offset
    path = tmp_path / "a.parquet"
    path.write_bytes(data[:at] + b"\xff" * 1000 + data[at + 1000 :])
    source = open_source(path, start=(12_346, 12_345))
    batches = source.batches()
    first = next(batches)

    assert 12_345 == first[0].position.offset
    assert len(data) * (12_345 + len(first)) // 30_000 == source.progress()[0]
    assert 30_000 - 12_345 == len(first) + sum(map(len, batches))
    source.close()


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    """A file of one large row group, as many tools write: 40 MB of values, read in a fraction of it."""
    rows = 40_000
    path = tmp_path / "a.parquet"
    table = pa.table({f"c{n}": [f"{n}-{row}" * 50 for row in range(rows)] for n in range(2)})
    write(path, table, compression="none", use_dictionary=False)
    size = table.nbytes
    del table
    before, most = pa.total_allocated_bytes(), 0
    source = open_source(path)
    for _ in source.batches():
        most = max(most, pa.total_allocated_bytes() - before)
    source.close()
    assert most < size / 4


# -- streams and closing -----------------------------------------------------------------------------------------------


def test_a_stream_is_copied_first(tmp_path: Path) -> None:
    """Its index stands at its end; the copy has no name, and lies where the run's folder does."""
    spool = Spool(io.BytesIO(stored(3)), tmp_path)
    source = open_source("-", raw=spool)
    assert [] == list(tmp_path.iterdir())
    assert (0, len(stored(3))) == source.progress()
    assert ["0", "1", "2"] == [(row.fields or {})["a"] for row in read(source)]
    assert "stdin" == source.name
    spool.close()


def test_a_stream_that_cannot_be_copied_is_told(tmp_path: Path) -> None:
    """With what to do about it."""
    spool = Spool(io.BytesIO(stored(3)))
    spool.forget()
    spool.folder = tmp_path / "gone"
    with pytest.raises(SourceError, match=r"so it is copied to .*gone first, and cannot \(No such file"):
        open_source("-", raw=spool)
    spool.close()


def test_closing_ends_reading(tmp_path: Path) -> None:
    """A second time changes nothing, and what is read behind it is an error, not an end."""
    source = open_source(write(tmp_path / "a.parquet", numbered(3000)))
    batches = source.batches()
    next(batches)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="was closed before its end"):
        next(batches)
