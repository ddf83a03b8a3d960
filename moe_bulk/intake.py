"""Rows from anywhere, as batches of records: files and standard input in a thread, rows in memory as they come."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from moe_bulk.columns import Columns, Unsent
from moe_bulk.errors import ConfigError
from moe_bulk.sources import open_source, row_in_memory

if TYPE_CHECKING:
    from moe_bulk.record import Record
    from moe_bulk.sources import Source


@dataclass(frozen=True, slots=True)
class Files:
    """Several files as one input, one after the other; `-` is standard input."""

    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.paths or self.paths.count("-") > 1:
            raise ConfigError("name at least one source, and standard input (-) only once")


Rows: TypeAlias = str | Files | os.PathLike[str] | Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]
"""A path (`-` is standard input), or device records: any iterable or async iterable of mappings."""

Batch: TypeAlias = "list[Record | Unsent]"

LONGEST_TURN = 0.005
"""Seconds that an iterable's rows are taken before other tasks get their turn."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How an input is read: its format, which column is which field, and how many rows at most."""

    columns: Columns = field(default_factory=Columns)
    format: str = "auto"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"the limit is a number of rows, at least 1; got {self.limit}")


class Intake:
    """Reads `rows` once, as `reading` says. Open it, take its `batches`, close it."""

    def __init__(self, rows: Rows, reading: Reading) -> None:
        self._rows = Files((os.fspath(rows),)) if isinstance(rows, (str, os.PathLike)) else rows
        self._reading = reading
        self._left = reading.limit
        self._header_warnings: list[str] = []
        self._source: Source | None = None
        self._bytes_before = 0
        self._bytes_in_all: int | None = None

    @property
    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far and in all, as stored; unknown for rows in memory and streams."""
        read = self._source.progress()[0] if self._source is not None else 0
        return self._bytes_before + read, self._bytes_in_all

    @property
    def warnings(self) -> list[str]:
        """What people should know about the input, so far: above all, what in it is not sent."""
        return [*self._header_warnings, *self._reading.columns.warnings()]

    @property
    def cut(self) -> bool:
        """True when the limit may have left rows unread."""
        return self._left == 0

    async def open(self) -> None:
        """Look at each file and its header, so that what is wrong with one is said before the first request."""
        if isinstance(self._rows, Files):
            await anyio.to_thread.run_sync(self._look_at, self._rows.paths)

    def _look_at(self, paths: tuple[str, ...]) -> None:
        sizes = []
        for path in paths:
            source = self._open_source(path)
            sizes.append(source.progress()[1])
            if path is paths[0]:
                self._source = source
            elif path != "-":
                source.close()
        if None not in sizes:
            self._bytes_in_all = sum(size for size in sizes if size is not None)

    def _open_source(self, path: str) -> Source:
        source = open_source(path, format=self._reading.format)
        if source.columns is not None:
            try:
                self._header_warnings += self._reading.columns.check_header(source.name, source.columns)
            except ConfigError:
                source.close()
                raise
        return source

    async def close(self) -> None:
        """Close what was opened."""
        if self._source is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._source.close)

    async def batches(self) -> AsyncIterator[Batch]:
        """Read it all, batch by batch; raises SourceError where it cannot be read on."""
        async with aclosing(self._found()) as found:
            async for batch in found:
                if self._left is None:
                    yield batch
                    continue
                taken = batch[: self._left]
                self._left -= len(taken)
                yield taken
                if not self._left:
                    return

    def _found(self) -> AsyncGenerator[Batch]:
        if isinstance(self._rows, Files):
            return self._from_files(self._rows.paths)
        if isinstance(self._rows, AsyncIterable):
            return self._from_async(self._rows)
        if isinstance(self._rows, Iterable):
            return self._from_iterable(self._rows)
        raise ConfigError(f"rows come as a path or as an iterable of mappings; got {type(self._rows).__name__}")

    async def _from_files(self, paths: tuple[str, ...]) -> AsyncGenerator[Batch]:
        for path in paths:
            if path is not paths[0] and self._source is not None:
                self._bytes_before += self._source.progress()[0]
                self._source.close()
                self._source = await anyio.to_thread.run_sync(open_source, path, self._reading.format)
            assert self._source is not None  # noqa: S101  the first one was opened by open()
            async for batch in self._from_source(self._source):
                yield batch

    async def _from_source(self, source: Source) -> AsyncGenerator[Batch]:
        batches = source.batches()
        read = self._reading.columns.read

        def next_batch() -> Batch | None:
            rows = next(batches, None)
            return None if rows is None else [read(row) for row in rows]

        # Files block, so a thread reads; a read that never returns (a terminal, a pipe) is left behind when cancelled.
        while (batch := await anyio.to_thread.run_sync(next_batch, abandon_on_cancel=True)) is not None:
            yield batch

    async def _from_async(self, rows: AsyncIterable[Mapping[str, object]]) -> AsyncGenerator[Batch]:
        index = 0
        async for row in rows:
            yield [self._reading.columns.read(row_in_memory(row, index))]
            index += 1

    async def _from_iterable(self, rows: Iterable[Mapping[str, object]]) -> AsyncGenerator[Batch]:
        # Not in a thread: cursors and sessions belong to the thread that made them.
        since = anyio.current_time()
        for index, row in enumerate(rows):
            yield [self._reading.columns.read(row_in_memory(row, index))]
            if anyio.current_time() - since > LONGEST_TURN:
                await checkpoint()
                since = anyio.current_time()
