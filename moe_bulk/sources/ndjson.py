"""NDJSON: one JSON object a line (https://github.com/ndjson/ndjson-spec); only a line feed ends one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from moe_bulk.record import Position, Row
from moe_bulk.sources.base import MAX_BATCH
from moe_bulk.sources.lines import BLANKS, bad_row, long_rows, not_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sources.lines import Piece, Pieces

_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


class Ndjson:
    """The rows of NDJSON in `pieces`; `name` is what their positions call the source."""

    columns: tuple[str, ...] | None = None

    def __init__(self, name: str, pieces: Pieces) -> None:
        self._name = name
        self._pieces = pieces

    def batches(self) -> Iterator[list[Row]]:
        """Give the rows in lists of at most `MAX_BATCH`, and an empty list where nothing came for a while."""
        for piece in self._pieces:
            if piece is None:
                yield []
            elif piece.overlong:
                yield long_rows(self._name, piece, self._pieces.max_row)
            else:
                yield from self._rows(piece)

    def _rows(self, piece: Piece) -> Iterator[list[Row]]:
        source, offset, batch = self._name, piece.offset, list[Row]()
        for line, raw in enumerate(piece.data.split(b"\n"), piece.line):
            try:
                fields = orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                if raw.strip(BLANKS):
                    batch.append(bad_row(Position(source, line, offset), _broken(raw, error), raw))
            else:
                place = Position(source, line, offset)
                batch.append(Row(place, fields) if type(fields) is dict else bad_row(place, _no_row(fields), raw))
            offset += len(raw) + 1
            if len(batch) == MAX_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _broken(raw: bytes, error: orjson.JSONDecodeError) -> str:
    return not_utf8(raw) or f"not valid JSON: {error.msg} (column {error.colno})"


def _no_row(value: object) -> str:
    return f"a row is a JSON object of fields; this is a JSON {_KINDS[type(value)]}"
