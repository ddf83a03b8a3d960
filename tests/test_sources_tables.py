"""Tables in memory: rows one by one, values as every other source gives them, whoever made the table."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.sources import row_in_memory, rows_of_table
from moe_bulk.sources.values import plain
from tests.fake_service import FakeService, device, devices
from tests.runs import Cut, deliver, written
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class NAType:
    """What pandas calls the type of NA: it is equal to nothing, and that is neither true nor false."""

    def __eq__(self, _: object) -> Any:
        return self

    def __ne__(self, _: object) -> Any:
        return self

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class LikePandas:
    """What behaves like a DataFrame of pandas, and counts the rows that were taken."""

    def __init__(self, columns: list[object], *rows: tuple[object, ...]) -> None:
        self.columns = columns
        self.rows = rows
        self.taken = 0

    def __iter__(self) -> Iterator[object]:
        return iter(self.columns)

    def itertuples(self, index: bool = True, name: str | None = "Pandas") -> Iterator[tuple[object, ...]]:  # noqa: FBT001, FBT002  pandas' own
        """Give the rows."""
        assert (False, None) == (index, name)
        for row in self.rows:
            self.taken += 1
            yield row


class LikePolars:
    """What behaves like a DataFrame of polars."""

    def __init__(self, *rows: dict[str, object]) -> None:
        self.rows = rows

    def iter_rows(self, *, named: bool = False) -> Iterator[dict[str, object]]:
        """Give the rows."""
        assert named
        return iter(self.rows)


def rows_of(table: object) -> list[dict[str, object]]:
    """Read it twice, which comes to the same."""
    rows = rows_of_table(table)
    assert rows is not None
    found = list(rows)
    assert found == list(rows)
    return found


def test_what_is_like_pandas_is_read_row_by_row() -> None:
    """Its index is not among them, names become text, and no row is taken before it is asked for."""
    table = LikePandas(["a", 1], ("x", float("nan")), (NAType(), 2))
    rows = rows_of_table(table)
    assert rows is not None
    assert {"a": "x", "1": None} == next(iter(rows))
    assert 1 == table.taken
    assert [{"a": "x", "1": None}, {"a": None, "1": 2}] == rows_of(table)


def test_what_is_like_polars_is_read_row_by_row() -> None:
    """Nested values stay nested."""
    assert [{"a": {"b": [1, None]}}] == rows_of(LikePolars({"a": {"b": [1, float("nan")]}}))


def test_columns_of_one_name_are_refused() -> None:
    """One of them would be lost."""
    with pytest.raises(SourceError, match="the table names the column 'a' twice"):
        rows_of_table(LikePandas(["a", "b", "a"]))


def test_a_query_that_was_not_carried_out_is_told() -> None:
    """It says what to pass."""

    class Lazy:
        def collect_schema(self) -> None:
            """Be lazy."""

    with pytest.raises(ConfigError, match=r"pass its \.collect\(\)"):
        rows_of_table(Lazy())


@pytest.mark.parametrize("rows", [[], [{"a": 1}], iter([]), {"a"}, "rows", 7])
def test_other_things_are_no_tables(rows: object) -> None:
    """They are taken or refused as before."""
    assert None is rows_of_table(rows)


class NaTType(datetime):
    """What pandas calls the type of NaT: a time, as far as Python knows."""


class Stubborn:
    """A number of numpy that Python has no match for: it gives itself."""

    ndim = 0

    def tolist(self) -> Stubborn:
        """Give itself."""
        return self

    def __str__(self) -> str:
        return "1.5"


class Word(str):
    """Text of somebody else's class."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("007", "007"),
        (Word("007"), "007"),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616"),
        (0.5, 0.5),
        (Decimal("1E+3"), "1000"),
        (Decimal("NaN"), None),
        (NaTType(2026, 1, 1), None),
        (datetime(2026, 11, 25, 14, 41, 56, tzinfo=UTC), "2026-11-25 14:41:56+00:00"),
        (bytearray(b"x"), "x"),
        (memoryview(b"\xff"), {"base64": "/w=="}),
        ((1, {"a": b"b"}), [1, {"a": "b"}]),
        (Stubborn(), "1.5"),
    ],
)
def test_a_value_becomes_what_a_row_has(value: object, expected: object) -> None:
    """One rule for all typed sources; the type matters, too."""
    found = plain(value)
    assert (type(expected), expected) == (type(found), found)


def test_missing_values_of_mappings_are_null_too() -> None:
    """`DataFrame.to_dict("records")` has them; whatever else a row holds stays as it is."""
    given = {"a": float("nan"), "b": NAType(), "c": Decimal("1.0"), "d": "x"}
    assert {"a": None, "b": None, "c": Decimal("1.0"), "d": "x"} == row_in_memory(given, 0).fields
    assert isinstance(given["b"], NAType)


# -- the real ones, where they are installed ---------------------------------------------------------------------------


def test_pandas() -> None:
    """NaN, NaT, NA and numbers of numpy, in its own types and in columns of objects."""
    pd, np = pytest.importorskip("pandas"), pytest.importorskip("numpy")
    table = pd.DataFrame(
        {
            "text": ["a", None],
            "number": pd.array([1, pd.NA], dtype="Int64"),
            "int": np.array([1, 2]),
            "real": [0.5, np.nan],
            "at": pd.to_datetime(["2026-11-25T14:41:56Z", pd.NaT]),
            "kind": pd.Categorical(["iOS", None]),
            "any": [np.int32(7), np.datetime64("NaT")],
            "many": [np.array([1, 2]), np.datetime64("2026-11-25")],
        }
    )
    assert [
        {"text": "a", "number": 1, "int": 1, "real": 0.5, "at": "2026-11-25 14:41:56+00:00", "kind": "iOS", "any": 7,
         "many": [1, 2]},
        {"text": None, "number": None, "int": 2, "real": None, "at": None, "kind": None, "any": None,
         "many": "2026-11-25"},
    ] == rows_of(table)  # fmt: skip


def test_polars() -> None:
    """Null and NaN; a query is told to be carried out."""
    pl = pytest.importorskip("polars")
    table = pl.DataFrame({"a": ["x", None], "b": [float("nan"), 1.5], "c": [{"d": [1]}, None], "e": [b"\xff", b"f"]})
    assert [
        {"a": "x", "b": None, "c": {"d": [1]}, "e": {"base64": "/w=="}},
        {"a": None, "b": 1.5, "c": None, "e": "f"},
    ] == rows_of(table)
    with pytest.raises(ConfigError, match="collect"):
        rows_of_table(table.lazy())


def test_arrow(tmp_path: Path) -> None:
    """A table, a batch, a dataset; what can be read only once is."""
    pa = pytest.importorskip("pyarrow")
    dataset = pytest.importorskip("pyarrow.dataset")
    table = pa.table({"a": [str(n) for n in range(1234)], "b": [float("nan")] * 1234})
    expected: list[dict[str, object]] = [{"a": str(n), "b": None} for n in range(1234)]
    dataset.write_dataset(table, tmp_path, format="parquet")

    assert expected == rows_of(table)
    assert expected == rows_of(table.to_batches()[0])
    assert expected == rows_of(dataset.dataset(tmp_path))
    once = rows_of_table(table.to_reader())
    assert once is not None
    assert expected == list(once)
    with pytest.raises(SourceError, match="names the column 'a' twice"):
        rows_of(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_a_table_is_streamed() -> None:
    """Its rows come to results, as those of a list do."""

    async def main() -> list[tuple[int, str]]:
        service = FakeService()
        async with service.uploader() as uploader, uploader.stream(LikePolars(*devices(3))) as results:
            return sorted([(result.position.line, result.status.value) async for result in results])

    assert [(1, "accepted"), (2, "accepted"), (3, "accepted")] == run_virtually(main)


def test_a_run_of_a_table_goes_on(tmp_path: Path) -> None:
    """It is compared with that of the session before."""
    table = LikePandas(list(device(0)), *(tuple(device(n).values()) for n in range(20)))
    assert deliver(table, tmp_path / "x.run", cut=Cut("signal", 7)).error is not None
    ended = deliver(table, tmp_path / "x.run", clock=(1000.0, 1_700_000_000.0))

    assert (None, 20) == (ended.error, written(tmp_path / "x.run").summary["counts"]["accepted"])
    assert len(ended.service.seen) <= 14


def test_no_library_of_tables_is_imported() -> None:
    """Whoever has a table has imported its library; others do not wait for it."""
    heavy = "pandas", "polars", "pyarrow", "numpy", "sqlalchemy", "boto3", "requests"
    code = f"import sys, moe_bulk.uploader, moe_bulk.cli; print(sorted({{*{heavy!r}}} & {{*sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == ended.stdout


def test_an_empty_table_has_no_rows() -> None:
    """It is an input like any other."""

    async def main() -> int:
        async with FakeService().uploader() as uploader, uploader.stream(LikePandas(["a"])) as results:
            return len([result async for result in results])

    assert 0 == run_virtually(main)
