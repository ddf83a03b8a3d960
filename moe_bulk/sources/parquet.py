"""Parquet (https://parquet.apache.org/docs/file-format/): rows by the batch, row group by row group, through pyarrow.

Its index stands at the file's end, so it is read from a plain file. What comes as a stream, from a URL or compressed as
a whole is first copied to a file without a name.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from itertools import accumulate
from threading import Event, Lock
from typing import IO, TYPE_CHECKING, Any, TypeVar

import orjson

from moe_bulk.errors import MoeBulkError, SourceError
from moe_bulk.record import Position, Row
from moe_bulk.sources.base import MAX_BATCH, MAX_ROW
from moe_bulk.sources.opening import brief, unreadable
from moe_bulk.sources.values import refuse_twins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from moe_bulk.sources.opening import Bytes

T = TypeVar("T")

MAGIC = b"PAR1"
_MAGIC_ENCRYPTED = b"PARE"

_BUFFER = 1 << 20
"""Bytes of each column that are read at a time: without it, the whole column of a row group."""


class Parquet:
    """The rows of a Parquet `file` of `size` bytes, from row `first` (from 0) on; `name` is what positions call it.

    A row's line is its number, and its offset is counted in rows, too. `columns` are the names of its columns; None
    where some are nested: then rows bring their own, as those of NDJSON do. Making one reads the index.
    """

    def __init__(self, name: str, file: IO[bytes], size: int, first: int = 0) -> None:
        self.name = name
        self._file = file
        self._size = size
        self._at = first
        self._closed = Event()
        self._busy = Lock()
        try:
            self._parquet = _opened(name, file)
            schema = self._parquet.schema_arrow
            refuse_twins(name, schema.names)
        except BaseException:
            file.close()
            raise
        self.rows: int | None = self._parquet.metadata.num_rows
        self.columns: tuple[str, ...] | None = tuple(schema.names)
        if any(kind.num_fields and not hasattr(kind, "index_type") for kind in schema.types):
            self.columns = None

    def batches(self) -> Iterator[list[Row]]:
        """Give the rows in lists of at most `MAX_BATCH`."""
        from moe_bulk.sources.arrow import rows_of  # noqa: PLC0415  for those who have pyarrow

        found = self._guarded(self._from_here)
        while (batch := self._guarded(lambda: next(found, None))) is not None:
            first, rows = self._at, self._guarded(lambda batch=batch: rows_of(batch))  # type: ignore[misc]  # mypy: a lambda's default
            self._at += len(rows)
            made = [Row(Position(self.name, at + 1, at), fields) for at, fields in enumerate(rows, first)]
            if batch.nbytes > MAX_ROW:
                made = [_if_short(row) for row in made]
            yield made

    def progress(self) -> tuple[int, int | None]:
        """The share of its bytes that the rows given so far have, and its size."""
        return (self._size * self._at // self.rows if self.rows else self._size), self._size

    def close(self) -> None:
        """Close it, from any thread: a read that is going on is not waited for, and closes it when it ends."""
        self._closed.set()
        if self._busy.acquire(blocking=False):
            try:
                with suppress(Exception):  # the data were read, or given up: nothing can be lost
                    self._file.close()
            finally:
                self._busy.release()

    def _from_here(self) -> Iterator[pa.RecordBatch]:
        """All batches from the present row on; row groups before it are not read."""
        about = self._parquet.metadata
        ends = list(accumulate(about.row_group(group).num_rows for group in range(about.num_row_groups)))
        groups = [group for group, end in enumerate(ends) if end > self._at]
        left = self._at - ([0, *ends][groups[0]] if groups else 0)
        # One thread: the pace is not set here, and pyarrow's pool would hold as many batches as there are cores.
        for batch in self._parquet.iter_batches(MAX_BATCH, row_groups=groups, use_threads=False):
            if batch.num_rows > left:
                yield batch.slice(left)
            left = max(0, left - batch.num_rows)

    def _guarded(self, act: Callable[[], T]) -> T:
        """Do what reads; whatever goes wrong with it is a SourceError."""
        try:
            with self._busy:
                self._refuse_closed()
                return act()
        except MoeBulkError:
            raise
        except Exception as error:  # noqa: BLE001  pyarrow has exceptions of its own, and Python's
            raise _damaged(self.name, error) from None
        finally:
            if self._closed.is_set():
                self.close()

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise SourceError(f"{self.name} was closed before its end")


def _opened(name: str, file: IO[bytes]) -> Any:
    try:
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415  0.3 s, for those who have Parquet
    except ImportError:
        raise SourceError(
            f"{name} is Parquet, which is read with pyarrow: install it with pip install 'moe-bulk[parquet]'"
        ) from None
    head = file.read(4)
    if head == _MAGIC_ENCRYPTED:
        raise _encrypted(name)
    if head != MAGIC:
        raise SourceError(f"{name} is no Parquet file: it does not begin with {MAGIC.decode()}. Is --format right?")
    file.seek(0)
    try:
        return ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
    except Exception as error:  # noqa: BLE001  as in `_guarded`
        if "crypt" in str(error).lower():
            raise _encrypted(name) from None
        raise SourceError(
            f"{name} cannot be read: it is damaged or cut off ({brief(error)}). Get a whole copy of this Parquet file, "
            "then run again"
        ) from None


def _damaged(name: str, error: Exception) -> SourceError:
    return _encrypted(name) if "crypt" in str(error).lower() else unreadable(name, error, "Parquet")


def _encrypted(name: str) -> SourceError:
    return SourceError(f"{name} is an encrypted Parquet file, and keys for it cannot be given: decrypt it first")


def _if_short(row: Row) -> Row:
    """The row, or a bad one where it is longer than a row may be."""
    length = len(orjson.dumps(row.fields, default=str))
    if length <= MAX_ROW:
        return row
    return Row(row.position, None, f"the row has {length:,} bytes as JSON, and a row may have {MAX_ROW:,}")


def copied(data: Bytes, folder: Path | None) -> IO[bytes]:
    """All of a stream in a file without a name, which no crash leaves behind; in `folder`, or where such files go."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            while (block := data.read()) != b"":
                file.write(block or b"")
            file.seek(0)
        except OSError as error:
            raise SourceError(
                f"{data.name} is Parquet, which is read from its end, so it is copied to "
                f"{folder or tempfile.gettempdir()} first, and cannot ({error.strerror}). Make room there, or name a "
                "plain file"
            ) from None
        stack.pop_all()
    return file
