"""Tables of pandas, polars and Arrow → rows, one by one; none of these is imported to know theirs.

What a table can do tells what it is. Values are as `values.plain` has them, so that NaN, NaT and NA are missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from moe_bulk.errors import ConfigError
from moe_bulk.sources.base import MAX_BATCH
from moe_bulk.sources.values import plain, refuse_twins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Fields: TypeAlias = "dict[str, object]"


class PandasTable(Protocol):
    """A DataFrame of pandas, or what behaves like one."""

    def itertuples(self, index: bool = True, name: str | None = "") -> Iterable[tuple[Any, ...]]:  # noqa: FBT001, FBT002  pandas' own
        """Its rows."""


class PolarsTable(Protocol):
    """A DataFrame of polars."""

    def iter_rows(self, *, named: bool = False) -> Iterator[Any]:
        """Its rows."""


class ArrowTable(Protocol):
    """A table, dataset or anything else of Arrow that comes in batches."""

    def to_batches(self) -> Iterable[Any]:
        """Its batches of columns."""


Table: TypeAlias = PandasTable | PolarsTable | ArrowTable


class _Again:
    """Rows that can be asked for from their beginning as often as needed."""

    def __init__(self, rows: Callable[[], Iterator[Fields]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Fields]:
        return self._rows()


def rows_of_table(found: object) -> Iterable[Fields] | None:
    """The rows of a table, made one by one as they are asked for; None for what is no table.

    Raises SourceError where two columns have one name, ConfigError for a query of polars that was not carried out.
    """
    if hasattr(found, "iter_rows"):
        return _Again(lambda: _of_polars(cast("PolarsTable", found)))
    if hasattr(found, "itertuples"):
        names = [str(name) for name in cast("Any", found).columns]
        refuse_twins("the table", names)
        return _Again(lambda: _of_pandas(cast("PandasTable", found), names))
    if hasattr(found, "read_next_batch"):
        return _of_arrow(found)
    if hasattr(found, "to_batches") or (hasattr(found, "to_pylist") and hasattr(found, "schema")):
        return _Again(lambda: _of_arrow(found))
    if hasattr(found, "collect_schema"):
        raise ConfigError("this is a query of polars that was not carried out yet: pass its .collect()")
    return None


def _of_polars(table: PolarsTable) -> Iterator[Fields]:
    for row in table.iter_rows(named=True):
        yield {name: plain(value) for name, value in row.items()}


def _of_pandas(table: PandasTable, names: list[str]) -> Iterator[Fields]:
    for row in table.itertuples(index=False, name=None):
        yield dict(zip(names, map(plain, row), strict=True))


def _of_arrow(table: Any) -> Iterator[Fields]:
    from moe_bulk.sources.arrow import rows_of  # noqa: PLC0415  whoever has such a table has pyarrow

    refuse_twins("the table", table.schema.names)
    batches = table.to_batches() if hasattr(table, "to_batches") else [table] if hasattr(table, "slice") else table
    for batch in batches:
        for start in range(0, batch.num_rows, MAX_BATCH):
            yield from rows_of(batch.slice(start, MAX_BATCH))
