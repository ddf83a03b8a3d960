"""An input that is read whole, in this thread, and some rows of it once more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from moe_bulk.columns import Reader
from moe_bulk.errors import ConfigError, MoeBulkError
from moe_bulk.fingerprint import of_file
from moe_bulk.intake import Files, Query
from moe_bulk.intake.files import FromFiles
from moe_bulk.intake.memory import LABEL
from moe_bulk.intake.reading import checked
from moe_bulk.record import Record
from moe_bulk.sources import open_source, row_in_memory
from moe_bulk.sources.base import MAX_BATCH
from moe_bulk.sources.opening import open_bytes
from moe_bulk.sources.parquet import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from moe_bulk.checking.collisions import Spot
    from moe_bulk.columns import Portion, Unsent
    from moe_bulk.intake import Reading, Rows
    from moe_bulk.record import Row


class Whole:
    """Reads `rows` from their beginning to their end, or to the limit; `close` it in any case."""

    def __init__(self, rows: Rows, reading: Reading) -> None:
        found = checked(rows)
        if isinstance(found, AsyncIterable):
            raise ConfigError("an async iterable can be read only once, and is to be sent: check a list of its rows")
        self._reading = reading
        self._reader = Reader(reading.columns)
        self._files = None
        self._rows: Iterable[Mapping[str, object]] = ()
        self.paths: tuple[str, ...] = ()
        """The files that are read, where there are any."""
        if isinstance(found, (Files, Query)):
            self.paths = found.paths if isinstance(found, Files) else ()
            self._files = FromFiles(found, self._reader, reading.format, None)
        else:
            self._rows = found
        self.labels = self._files.labels if self._files is not None else (LABEL,)

    @property
    def notes(self) -> list[str]:
        """What is not sent, and what else people should know of it."""
        return [*(self._files.warnings if self._files is not None else ()), *self._reader.warnings()]

    @property
    def platform_is_constant(self) -> bool:
        """True where not the rows say which platform it is."""
        columns = self._reading.columns
        preset = columns.in_use.constants if columns.in_use is not None else {}
        return "platform" in columns.constants or "platform" in preset

    @property
    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far and in all, as stored."""
        return (self._files.bytes_read, self._files.bytes_in_all) if self._files is not None else (0, None)

    def batches(self) -> Iterator[Portion | list[Record | Unsent]]:
        """All rows, in batches; by column where they are as others were. SourceError where they cannot be read."""
        left = self._reading.limit
        for batch in self._all():
            rows = batch if left is None else batch[:left]
            yield self._reader.portion(rows) or list(map(self._reader.read, rows))
            if left is not None and (left := left - len(rows)) <= 0:
                return

    def _all(self) -> Iterator[list[Row]]:
        if self._files is None:
            yield from self._from_memory()
            return
        self._files.look()
        yield from self._files.rows()

    def _from_memory(self) -> Iterator[list[Row]]:
        batch: list[Row] = []
        for index, fields in enumerate(self._rows):
            batch += self._reader.spread([row_in_memory(fields, index)])
            if len(batch) >= MAX_BATCH:
                yield batch
                batch = []
        yield batch

    def close(self) -> None:
        """Close what was opened."""
        if self._files is not None:
            self._files.close()

    def again(self, spot: Spot) -> list[Record]:
        """The devices of the row at a place, where it can be had without reading all before it; else none."""
        try:
            rows = self._rows_at(spot)
        except (MoeBulkError, OSError):  # it was changed or removed meanwhile
            return []
        made = map(self._reader.read, self._reader.spread(rows))
        return [each for each in made if isinstance(each, Record)]

    def _rows_at(self, spot: Spot) -> list[Row]:
        if self._files is None:
            if not isinstance(self._rows, Sequence):
                return []
            return [row_in_memory(self._rows[spot.offset], spot.offset)]
        if not self.paths or not _can_be_sought(path := self.paths[spot.source]):
            return []
        format_, start = self._reading.format, (spot.line, spot.offset)
        with closing(open_source(path, format_, label=self.labels[spot.source], start=start)) as source:
            rows: list[Row] = next(filter(None, source.batches()), [])
        return [row for row in rows[:1] if row.position.offset == spot.offset]


def _can_be_sought(path: str) -> bool:
    if of_file(path) is None:
        return False
    with closing(open_bytes(os.fspath(path))) as data:
        return data.is_plain or data.head.startswith(MAGIC)
