"""Rows from anywhere, as batches of records: files and standard input in a thread, rows in memory as they come."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from moe_bulk.columns import Columns, Reader, Unsent
from moe_bulk.errors import ConfigError
from moe_bulk.sources import open_source, row_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.record import Record
    from moe_bulk.sources import Source


@dataclass(frozen=True, slots=True)
class Files:
    """Several files as one input, one after the other; `-` is standard input."""

    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("name at least one source")
        seen: set[str] = set()
        for path in self.paths:
            file = _file(path)
            if file in seen:
                raise ConfigError(f"the source {path} stands twice: name it once")
            seen.add(file)


def _file(path: str) -> str:
    # What `a.csv`, `./a.csv` and a link to it have in common; a path with a NUL in it names no file at all.
    return path if path == "-" or "://" in path or "\0" in path else os.path.realpath(path)


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
    """Reads `rows` once, as `reading` says. Open it, take its `batches`, close it, whatever came of the opening."""

    def __init__(self, rows: Rows, reading: Reading) -> None:
        self._rows = _checked(rows)
        self._reading = reading
        self._reader = Reader(reading.columns)
        self._left = reading.limit
        self._header_warnings: list[str] = []
        self._kept: dict[str, Source] = {}
        self._source: Source | None = None
        self._bytes_before = 0
        self._bytes_in_all: int | None = None
        # A thread that reads goes on when the task that waits for it is cancelled: closing waits for it.
        self._busy = threading.Lock()
        self._closed = False

    @property
    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far and in all, as stored; unknown for rows in memory and streams."""
        source = self._source
        return self._bytes_before + (source.progress()[0] if source is not None else 0), self._bytes_in_all

    @property
    def warnings(self) -> list[str]:
        """What people should know about the input, so far: above all, what in it is not sent."""
        return [*self._header_warnings, *self._reader.warnings()]

    @property
    def cut(self) -> bool:
        """True when the limit may have left rows unread."""
        return self._left == 0

    async def open(self) -> None:
        """Look at each file and its header, so that what is wrong with one is said before the first request."""
        if isinstance(self._rows, Files):
            await anyio.to_thread.run_sync(self._look_at, self._rows.paths)

    async def close(self) -> None:
        """Close what was opened."""
        if isinstance(self._rows, Files):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._close)

    async def batches(self) -> AsyncGenerator[Batch]:
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
        return self._from_iterable(self._rows)

    # -- files: they block, so threads read them -------------------------------------------------------------------

    def _look_at(self, paths: tuple[str, ...]) -> None:
        with self._busy:
            sizes = [self._size(path, keep=path in (paths[0], "-")) for path in paths if not self._closed]
            if None not in sizes:
                self._bytes_in_all = sum(size for size in sizes if size is not None)

    def _size(self, path: str, *, keep: bool) -> int | None:
        """Look at one file; keep it open where that is needed: standard input cannot be opened twice."""
        with ExitStack() as stack:
            source = open_source(path, self._reading.format)
            stack.callback(source.close)
            if source.columns is not None:
                self._header_warnings += self._reader.check_header(source.name, source.columns)
            if keep:
                self._kept[path] = source
                stack.pop_all()
            return source.progress()[1]

    async def _from_files(self, paths: tuple[str, ...]) -> AsyncGenerator[Batch]:
        batches = self._read_files(paths)
        while (batch := await anyio.to_thread.run_sync(self._next, batches, abandon_on_cancel=True)) is not None:
            yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        with self._busy:
            return None if self._closed else next(batches, None)

    def _read_files(self, paths: tuple[str, ...]) -> Iterator[Batch]:
        read = self._reader.read
        for path in paths:
            source = self._kept.pop(path, None) or open_source(path, self._reading.format)
            self._source = source
            for rows in source.batches():
                yield [read(row) for row in rows]
            self._source = None
            self._bytes_before += source.progress()[0]
            source.close()

    def _close(self) -> None:
        with self._busy:
            self._closed = True
            for source in (self._source, *self._kept.values()):
                if source is not None:
                    source.close()

    # -- rows in memory: they are taken where the caller lives -----------------------------------------------------

    async def _from_async(self, rows: AsyncIterable[Mapping[str, object]]) -> AsyncGenerator[Batch]:
        async with AsyncExitStack() as stack:
            if isinstance(rows, AsyncGenerator):
                stack.push_async_callback(rows.aclose)  # what it holds open is let go when the stream is left
            index = 0
            async for row in rows:
                yield [self._reader.read(row_in_memory(row, index))]
                index += 1

    async def _from_iterable(self, rows: Iterable[Mapping[str, object]]) -> AsyncGenerator[Batch]:
        # Not in a thread: cursors and sessions belong to the thread that made them.
        with ExitStack() as stack:
            if isinstance(rows, Generator):
                stack.callback(rows.close)
            since = anyio.current_time()
            for index, row in enumerate(rows):
                yield [self._reader.read(row_in_memory(row, index))]
                if anyio.current_time() - since > LONGEST_TURN:
                    await checkpoint()
                    since = anyio.current_time()


def _checked(rows: object) -> Files | Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]:
    if isinstance(rows, (str, os.PathLike)):
        return Files((os.fspath(rows),))
    if isinstance(rows, Mapping):
        raise ConfigError("rows are many mappings, and this is one: put it in a list, or use send()")
    if isinstance(rows, (Files, AsyncIterable)):
        return rows
    if not isinstance(rows, Iterable) or isinstance(rows, (bytes, bytearray)):
        raise ConfigError(f"rows come as a path or as an iterable of mappings; this is a {type(rows).__name__}")
    return rows
