"""What is to be read, and how: plain values."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from moe_bulk.columns import Columns
from moe_bulk.errors import ConfigError
from moe_bulk.sources import Query, Table, is_database, masked, rows_of_table

if TYPE_CHECKING:
    from moe_bulk.columns import Unsent
    from moe_bulk.record import Position, Record

STDIN = "stdin"
"""What positions call standard input."""


@dataclass(frozen=True, slots=True)
class Files:
    """Several files as one input, one after the other; `-` is standard input."""

    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("name at least one source")
        seen: set[str] = set()
        for path in self.paths:
            if is_database(path):
                raise ConfigError("a database stands by itself, and is asked with --query (in Python: Query(url, sql))")
            file = _file(path)
            if file in seen:
                raise ConfigError(f"the source {masked(path)} stands twice: name it once")
            seen.add(file)
        if "-" in self.paths and STDIN in self.paths:
            raise ConfigError(f"a file called {STDIN} beside standard input: write ./{STDIN}, to tell them apart")
        if len(set(self.labels)) < len(self.paths):
            raise ConfigError(
                "two sources have the same name in results, where URLs stand without their secrets: upload them one "
                "after the other, or rename one"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """What positions call each of them."""
        return tuple(STDIN if path == "-" else clean_name(path) for path in self.paths)


def clean_name(path: str) -> str:
    """The path as results name it: file names need not be UTF-8, results are; URLs stand without their secrets."""
    path = path.encode("utf-8", "backslashreplace").decode()
    return masked(path) if "://" in path else path


def _file(path: str) -> str:
    # What `a.csv`, `./a.csv` and a link to it have in common; a path with a NUL in it names no file at all.
    return path if path == "-" or "://" in path or "\0" in path else os.path.realpath(path)


Rows: TypeAlias = (
    str
    | Files
    | Query
    | os.PathLike[str]
    | Table
    | Iterable[Mapping[str, object]]
    | AsyncIterable[Mapping[str, object]]
)
"""A path (`-` is standard input), a query, a table of pandas, polars or Arrow, or any iterable of mappings."""

Batch: TypeAlias = "list[Record | Unsent | Position]"
"""Rows in the order of the input; the position of one that was settled before may stand behind those."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How an input is read: its format, which column is which field, and how many rows at most."""

    columns: Columns = field(default_factory=Columns)
    format: str = "auto"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"the limit is a number of rows, at least 1; got {self.limit}")


def checked(rows: object) -> Files | Query | Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]:
    """The rows, a path as `Files`; ConfigError for what are none."""
    if isinstance(rows, (str, os.PathLike)):
        return Files((os.fspath(rows),))
    if isinstance(rows, Mapping):
        raise ConfigError("rows are many mappings, and this is one: put it in a list, or use send()")
    if isinstance(rows, (Files, Query, AsyncIterable)):
        return rows
    if (table := rows_of_table(rows)) is not None:
        return table
    if not isinstance(rows, Iterable) or isinstance(rows, (bytes, bytearray)):
        raise ConfigError(f"rows come as a path, a table or an iterable of mappings; this is a {type(rows).__name__}")
    return rows
