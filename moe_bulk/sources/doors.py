"""The door to all sources: open one, find out its format, read it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.sources.base import MAX_ROW
from moe_bulk.sources.delimited import Delimited
from moe_bulk.sources.lines import Pieces
from moe_bulk.sources.ndjson import Ndjson
from moe_bulk.sources.opening import BLOCK, COMPRESSED, open_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.record import Row
    from moe_bulk.sources.base import Source
    from moe_bulk.sources.opening import Bytes, Readable

FORMATS = ("csv", "ndjson")

_BY_ENDING = dict.fromkeys((".csv", ".tsv", ".tab", ".psv", ".txt"), "csv") | dict.fromkeys(
    (".ndjson", ".jsonl", ".json"), "ndjson"
)
_ARRAY = re.compile(rb"\s*\[\s*\{")


class _Opened:
    """Lines of text, read in one of the formats."""

    def __init__(self, data: Bytes, rows: Delimited | Ndjson) -> None:
        self.name = data.name
        self.columns = rows.columns
        self._data = data
        self._rows = rows

    def batches(self) -> Iterator[list[Row]]:
        return self._rows.batches()

    def progress(self) -> tuple[int, int | None]:
        return self._data.consumed, self._data.total

    def close(self) -> None:
        self._data.close()


def open_source(
    name: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002  the option's name
    stdin: Readable | None = None,
    *,
    block: int = BLOCK,
    max_row: int = MAX_ROW,
) -> Source:
    """Open a path, a URL or, as `-`, standard input (`stdin`, if one is given), and read a CSV's header.

    `format` is `csv`, `ndjson` or `auto`: by the name's ending, or else by the first character. `block` and `max_row`
    are bytes. Raises SourceError for what cannot be read, ConfigError for a format that does not exist.
    """
    if format not in ("auto", *FORMATS):
        raise ConfigError(f"there is no format {format!r}: use {', '.join(FORMATS)} or auto")
    data = open_bytes(os.fspath(name), stdin=stdin, block=block)
    try:
        pieces = Pieces(data.read, line=1, offset=data.start, max_row=max_row)
        if (_format_of(data) if format == "auto" else format) == "csv":
            return _Opened(data, Delimited(data.name, pieces))
        _refuse_array(data)
        return _Opened(data, Ndjson(data.name, pieces))
    except BaseException:
        data.close()
        raise


def _format_of(data: Bytes) -> str:
    path = PurePosixPath(data.name.lower())
    ending = PurePosixPath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    by_head = "ndjson" if data.head.lstrip()[:1] in (b"{", b"[") else "csv"
    return _BY_ENDING.get(ending, by_head)


def _refuse_array(data: Bytes) -> None:
    if _ARRAY.match(data.head):
        source = "" if data.name == "stdin" else f" {shlex.quote(data.name)}"
        raise SourceError(
            f"{data.name} is one JSON array, and NDJSON is read (one object a line): convert it with "
            f"jq -c '.[]'{source} > NEW.ndjson"
        )
