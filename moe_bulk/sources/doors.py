"""The door to all sources: open one, find out its format, read it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.sources.base import MAX_ROW
from moe_bulk.sources.delimited import Delimited
from moe_bulk.sources.lines import Pieces
from moe_bulk.sources.ndjson import Ndjson
from moe_bulk.sources.opening import BLOCK, COMPRESSED, open_bytes
from moe_bulk.sources.parquet import MAGIC, Parquet, copied
from moe_bulk.sources.replay import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.record import Row
    from moe_bulk.sources.base import Source
    from moe_bulk.sources.opening import Bytes, Readable

FORMATS = ("csv", "ndjson", "parquet")

_BY_ENDING = dict.fromkeys((".csv", ".tsv", ".tab", ".psv", ".txt"), "csv") | dict.fromkeys(
    (".ndjson", ".jsonl", ".json"), "ndjson"
)
_BY_ENDING |= dict.fromkeys((".parquet", ".parq", ".pq"), "parquet")
_ARRAY = re.compile(rb"\s*\[\s*\{")


class _Opened:
    """Lines of text, read in one of the formats."""

    def __init__(self, name: str, data: Bytes, rows: Delimited | Ndjson) -> None:
        self.name = name
        self.columns = rows.columns
        self.rows: int | None = None
        self._data = data
        self._rows = rows

    def batches(self) -> Iterator[list[Row]]:
        return self._rows.batches()

    def progress(self) -> tuple[int, int | None]:
        return self._data.consumed, self._data.total

    def close(self) -> None:
        self._data.close()


class _Twice:
    """What is read from its beginning, for its header, and then from `offset` on, wherever the header ends."""

    def __init__(self, data: Bytes, offset: int) -> None:
        self._data = data
        self._ahead = offset - data.start
        self._behind = b""

    def beginning(self) -> bytes | None:
        """Some more of it from its first byte on; of what stands behind the offset nothing is lost."""
        block = self._data.read()
        self._behind += self._from_offset(block or b"")
        return block

    def rest(self) -> bytes | None:
        """Some more of it from the offset on; what stands before that is read past."""
        if self._behind:
            behind, self._behind = self._behind, b""
            return behind
        while block := self._data.read():
            if behind := self._from_offset(block):
                return behind
        return block

    def _from_offset(self, block: bytes) -> bytes:
        behind = block[self._ahead :]
        self._ahead = max(0, self._ahead - len(block))
        return behind


def open_source(
    name: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002  the option's name
    raw: Readable | None = None,
    *,
    block: int = BLOCK,
    max_row: int = MAX_ROW,
    label: str | None = None,
    start: tuple[int, int] | None = None,
) -> Source:
    """Open a path, a URL or, as `-`, standard input, and read a CSV's header; `raw` is it opened already.

    `format` is `csv`, `ndjson`, `parquet` or `auto`: by the name's ending, or else by the first bytes. `block` and
    `max_row` are bytes, `label` is what positions call the source. `start` is the (line, offset) of a row to begin
    with: the rows from there on are those that a reading from the beginning gives. Raises SourceError for what cannot
    be read, ConfigError for a format that does not exist.
    """
    if format not in ("auto", *FORMATS):
        raise ConfigError(f"there is no format {format!r}: use {', '.join(FORMATS)} or auto")
    data = open_bytes(os.fspath(name), raw=raw, block=block)
    try:
        found = _format_of(data) if format == "auto" else format
        if found == "parquet":
            return _parquet(data, name if raw is None else None, raw, label or data.name, start)
        _refuse_others(data, found)
        rows = _rows(label or data.name, data, max_row, start, csv=found == "csv")
        return _Opened(label or data.name, data, rows)
    except BaseException:
        data.close()
        raise


def _rows(label: str, data: Bytes, max_row: int, start: tuple[int, int] | None, *, csv: bool) -> Delimited | Ndjson:
    """The rows in `data`, all of them, or those from `start` on; a header is read in any case."""
    if start is None or start[1] <= data.start:
        pieces = Pieces(data.read, offset=data.start, max_row=max_row)
        return Delimited(label, pieces) if csv else Ndjson(label, pieces)
    line, offset = start
    twice = _Twice(data, offset)
    rows = Delimited(label, Pieces(twice.beginning, offset=data.start, max_row=max_row)) if csv else None
    pieces = Pieces(data.read if data.seek(offset) else twice.rest, line, offset, max_row)
    if rows is None:
        return Ndjson(label, pieces)
    rows.go_on(pieces)
    return rows


def _parquet(
    data: Bytes, path: str | os.PathLike[str] | None, raw: Readable | None, label: str, start: tuple[int, int] | None
) -> Source:
    """The rows of Parquet, which is read in any order: a plain file's by its `path`, all others' from a copy."""
    if path is not None and data.is_plain:
        data.close()
        file: IO[bytes] = Path(path).open("rb")  # noqa: SIM115  the source closes it
        size = data.total or 0
    else:
        try:
            file = copied(data, raw.folder if isinstance(raw, Spool) else None)
        finally:
            data.close()
        size = data.consumed
    return Parquet(label, file, size, start[1] if start is not None else 0)


def _format_of(data: Bytes) -> str:
    if data.head.startswith(MAGIC):
        return "parquet"
    path = PurePosixPath((data.name.partition("?")[0] if "://" in data.name else data.name).lower())
    ending = PurePosixPath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    by_head = "ndjson" if data.head.lstrip()[:1] in (b"{", b"[") else "csv"
    return _BY_ENDING.get(ending, by_head)


def _refuse_others(data: Bytes, format: str) -> None:  # noqa: A002  the option's name
    if data.head.startswith(MAGIC):
        raise SourceError(f"{data.name} is a Parquet file: leave out --format, or say --format parquet")
    if format == "ndjson" and _ARRAY.match(data.head):
        source = "" if data.name == "stdin" else f" {shlex.quote(data.name)}"
        raise SourceError(
            f"{data.name} is one JSON array, and NDJSON is read (one object a line): convert it with "
            f"jq -c '.[]'{source} > NEW.ndjson"
        )
