"""NDJSON: one JSON object a line. Only LF ends a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from moe_bulk.record import Position, Row
from moe_bulk.sources.base import MAX_BATCH
from moe_bulk.sources.lines import Line, Lines, too_long, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sources.opening import Bytes


class NdjsonSource:
    """Rows of an NDJSON stream."""

    def __init__(self, name: str, stream: Bytes, lines: Lines) -> None:
        self.name = name
        self.columns: tuple[str, ...] | None = None
        self._stream = stream
        self._lines = lines

    def batches(self) -> Iterator[list[Row]]:
        """Each line that is not blank as a row; broken ones with their problem."""
        for lines in self._lines.batches():
            rows = self._rows(lines)
            for start in range(0, len(rows), MAX_BATCH):
                yield rows[start : start + MAX_BATCH]
            if not rows:
                yield rows

    def progress(self) -> tuple[int, int | None]:
        """Bytes read and in all, as stored."""
        return self._stream.progress()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _rows(self, lines: list[Line]) -> list[Row]:
        name, rows = self.name, []
        for line in lines:
            number, offset, data, length = line
            try:
                fields = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                if data.strip():
                    rows.append(unreadable(name, line, too_long(line) if length != len(data) else _broken(data, error)))
                continue
            if type(fields) is dict and length == len(data):
                rows.append(Row(Position(name, number, offset), fields))
            else:
                rows.append(unreadable(name, line, too_long(line) if length != len(data) else _not_an_object(fields)))
        return rows


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _not_an_object(value: object) -> str:
    return f"a row is a JSON object of fields; this is a JSON {_KINDS[type(value)]}"


def _broken(data: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as wrong:
        return f"byte {wrong.start + 1} of the row is not UTF-8"
    return f"not valid JSON: {error.msg} (column {error.colno})"
