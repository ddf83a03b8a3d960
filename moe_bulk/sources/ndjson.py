"""NDJSON: one JSON object a line (https://github.com/ndjson/ndjson-spec); only a line feed ends one."""

from __future__ import annotations

import contextlib
import io
import json
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, Final, NoReturn, cast

import orjson

from moe_bulk.record import Number, Row
from moe_bulk.sources.base import MAX_BATCH
from moe_bulk.sources.lines import BLANKS, bad_row, long_rows, not_utf8, positions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moe_bulk.record import Position
    from moe_bulk.sources.lines import Piece, Pieces

_KINDS = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    Number: "number",
    bool: "boolean",
    type(None): "null",
}

_EXACT: Final[frozenset[type]] = frozenset({str, bool, type(None)})
"""What a value of a common row is: orjson gives it as it was written."""


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
        raws = io.BytesIO(piece.data).readlines()  # with their line feeds, in a third of the time that `split` takes
        offsets = accumulate(map(len, raws), initial=piece.offset)  # and one more, which nobody takes
        places = positions(self._name, piece.line, offsets)
        for first in range(0, len(raws), MAX_BATCH):
            some = raws[first : first + MAX_BATCH]
            if rows := _read(some, list(islice(places, len(some)))):
                yield rows


def _read(raws: Sequence[bytes], places: Sequence[Position]) -> list[Row]:
    """The rows of lines: all at once where each holds an object of texts and the like, which costs a third less."""
    try:
        found = list(map(orjson.loads, raws))
    except orjson.JSONDecodeError:
        one_by_one = map(_parsed, places, [raw.removesuffix(b"\n") for raw in raws])
        return [row for row in one_by_one if row is not None]
    if set(map(type, found)) == {dict} and _EXACT.issuperset(map(type, chain.from_iterable(map(dict.values, found)))):
        return list(map(Row, places, found))
    return list(map(_row, places, raws, found))


def _parsed(place: Position, raw: bytes) -> Row | None:
    """The row of one line, a bad one perhaps; None for a blank line."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _refused(place, raw, error) if raw.strip(BLANKS) else None
    return _row(place, raw, value)


def _row(place: Position, raw: bytes, value: object) -> Row:
    """The row with its numbers as they were written: orjson rounds `1.10` and integers of more than 64 bits."""
    if type(value) is not dict:
        return bad_row(place, _no_row(value), raw)
    if _EXACT.issuperset(map(type, value.values())) or not _is_lossy(value, minus_zero=b"-0" in raw):
        return Row(place, value)
    try:
        return Row(place, cast("dict[str, object]", _exactly(raw)))
    except RecursionError:
        return bad_row(place, "not valid JSON for a row: nested too deep to keep the spelling of its numbers", raw)


def _is_lossy(fields: dict[str, object], *, minus_zero: bool) -> bool:
    """Whether a number in it, at any depth, may have been written otherwise."""
    rest: list[object] = [fields]
    for value in rest:
        kind = type(value)
        if kind is dict:
            rest += cast("dict[str, object]", value).values()
        elif kind is list:
            rest += cast("list[object]", value)
        elif kind is float or (minus_zero and kind is int and value == 0):
            return True
    return False


def _refused(place: Position, raw: bytes, error: orjson.JSONDecodeError) -> Row:
    """A bad row, or a good one: orjson refuses `1e400`, which is valid JSON."""
    if error.msg.startswith("number is infinity"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            value = _exactly(raw)
            # the standard library takes halves of characters, which orjson does not: then it raises here
            orjson.dumps(value, default=str)
            return Row(place, value) if type(value) is dict else bad_row(place, _no_row(value), raw)
    return bad_row(place, _broken(raw, error), raw)


def _exactly(raw: bytes) -> object:
    return json.loads(raw.decode(), parse_float=Number, parse_int=_integer, parse_constant=_no_constant)


def _integer(spelling: str) -> int | Number:
    """Integers of 64 bits stay what they are; 20 characters hold them all."""
    value = int(spelling) if len(spelling) <= 20 and spelling != "-0" else None
    return value if value is not None and -(2**63) <= value < 2**64 else Number(spelling)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _broken(raw: bytes, error: orjson.JSONDecodeError) -> str:
    return not_utf8(raw) or f"not valid JSON: {error.msg} (column {error.colno})"


def _no_row(value: object) -> str:
    return f"a row is a JSON object of fields; this is a JSON {_KINDS[type(value)]}"
