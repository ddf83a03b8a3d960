"""The failures as a new input: each failed row as it was read, and why it failed.

A dead letter is one NDJSON line: the row's own columns and values, plus one field, `_moe_bulk`. Fixed or not, the file
is an input of the next upload.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import operator
import re
from dataclasses import fields, is_dataclass
from datetime import date, time
from enum import Enum
from typing import TYPE_CHECKING, SupportsIndex, cast

import orjson

from moe_bulk.columns import REASON_KEPT
from moe_bulk.outcome import FORMAT
from moe_bulk.record import NOTE, RAW_KEPT, Number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import DataclassInstance

    from moe_bulk.outcome import Result
    from moe_bulk.record import Row

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number of RFC 8259, section 6."""

HISTORY_KEPT = 20
"""Earlier failures that a dead letter tells: the last ones."""

_HISTORY = {
    "source": str,
    "line": int,
    "item": int,
    "status": str,
    "reason": str,
    "http_status": int,
    "error_type": str,
    "request_id": str,
    "attempts": int,
    "superseded_by": int,
}
"""What of an earlier note is told again."""

_DEEPEST = 100
"""Levels of nesting that are kept; orjson itself gives up at 254."""


def letter(result: Result) -> bytes:
    """The row as it was read and why it failed, as one line of JSON with its line feed; it never raises.

    Text, 64-bit integers, booleans, nulls and every number of a file stay exactly as they are. What JSON cannot say
    stands as text (`Decimal`, dates, bytes, Python's larger integers) or, for NaN and the infinities, as null. A row
    that has a `_moe_bulk` of its own keeps it as `previous` inside the new one. A row that was a dead letter already
    tells its earlier failures as `history`, oldest first.
    """
    row = result.row.fields or {}
    note = _note(result)
    if NOTE in row:
        note["previous"] = row[NOTE]
        row = {name: value for name, value in row.items() if name != NOTE}
    try:
        return orjson.dumps({**row, NOTE: note}, default=_other, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        plain = _plain_dict(row.items(), (), {NOTE})
        return orjson.dumps({**plain, NOTE: _plain(note, ())}, option=orjson.OPT_APPEND_NEWLINE)


def as_json(value: object, *, option: int = 0) -> bytes:
    """Any Python value as JSON, in the manner of `letter`: rather a lossy value than none. `option` is orjson's."""
    try:
        return orjson.dumps(value, default=_other, option=option)
    except TypeError:
        return orjson.dumps(_plain(value, ()), option=option)


def clean(text: str) -> str:
    r"""The text with lone surrogates spelt out (`\udc80`), as file names that are no UTF-8 have them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _note(result: Result) -> dict[str, object]:
    note: dict[str, object] = {
        "format": FORMAT,
        "source": result.position.source,
        "line": result.position.line,
        "item": result.position.item,
        "status": result.status.value,
        "reason": result.reason,
        "http_status": result.http_status,
        "error_type": result.error_type,
        "request_id": result.request_id,
        "attempts": result.tries,
        "superseded_by": None,
    }
    if result.mapping is not None:
        note["mapping"] = result.mapping
    if result.row.fields is None:
        note |= _raw(result.row)
    if result.row.note is not None and (history := _history(result.row.note)):
        note["history"] = history
    return note


def _history(note: dict[str, object]) -> list[dict[str, object]]:
    """The failures before this one, of a note that somebody may have edited: what makes no sense is left out."""
    earlier = note.get("history")
    notes = [*(earlier[-HISTORY_KEPT:] if type(earlier) is list else []), note]
    told = (_failure(each) for each in notes if type(each) is dict)
    return [each for each in told if set(each.values()) - {None}][-HISTORY_KEPT:]


def _failure(note: dict[str, object]) -> dict[str, object]:
    failure: dict[str, object] = {}
    for name, kind in _HISTORY.items():
        value = note.get(name)
        if type(value) is str and kind is str:
            failure[name] = clean(value[:REASON_KEPT])[:REASON_KEPT]
        elif type(value) is int and kind is int and 0 <= value < 2**63:
            failure[name] = value
        elif value is None and name in note and name != "superseded_by":  # that most are not need not be said
            failure[name] = None
    return failure


def _raw(row: Row) -> dict[str, object]:
    raw = row.raw[:RAW_KEPT]
    cut = row.raw_bytes > len(raw)
    said: dict[str, object] = {"raw_bytes": row.raw_bytes}
    try:
        # the cut may go through a character: what is left of it is dropped, the rest is still text
        said["raw"] = codecs.getincrementaldecoder("utf-8")().decode(raw, final=not cut)
    except UnicodeDecodeError:
        said["raw_base64"] = base64.b64encode(raw).decode()
    return said


def _other(value: object) -> object:
    """What orjson does not know, one level at a time."""
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return _scalar(value)


def _plain(value: object, above: tuple[int, ...]) -> object:
    """The value with nothing in it that orjson refuses. `above` holds the ids of the containers around it."""
    with contextlib.suppress(Exception):
        return _scalar(value) if _is_scalar(value) else _container(value, above)
    return _hidden(value)


def _is_scalar(value: object) -> bool:
    if isinstance(value, type):
        return True
    return not (isinstance(value, (dict, list, tuple, set, frozenset, Enum)) or is_dataclass(value))


def _container(value: object, above: tuple[int, ...]) -> object:
    """The parts of a value that has parts; `…` where it stands within itself or too deep."""
    if len(above) >= _DEEPEST or id(value) in above:
        return "…"
    within = (*above, id(value))
    if isinstance(value, Enum):
        return _plain(value.value, within)
    if isinstance(value, dict):
        return _plain_dict(value.items(), within, set())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each, within) for each in value]
    named = ((each.name, getattr(value, each.name)) for each in fields(cast("DataclassInstance", value)))
    return _plain_dict(named, within, set())


def _plain_dict(items: Iterable[tuple[object, object]], above: tuple[int, ...], taken: set[str]) -> dict[str, object]:
    """Keys become text and stay apart: `1` beside `"1"` is called `1 (2)`. Keys that are text keep their names."""
    pairs = list(items)
    names = taken | {cast("str", key) for key, _ in pairs if _is_name(key)}
    plain: dict[str, object] = {}
    for key, value in pairs:
        name = cast("str", key) if _is_name(key) else _free(_name(key), names)
        names.add(name)
        plain[name] = _plain(value, above)
    return plain


def _is_name(key: object) -> bool:
    return type(key) is str and clean(key) == key


def _free(name: str, names: set[str]) -> str:
    number, free = 1, name
    while free in names:
        number += 1
        free = f"{name} ({number})"
    return free


def _name(key: object) -> str:
    with contextlib.suppress(Exception):
        return _text(key)
    return _hidden(key)


def _hidden(value: object) -> str:
    return f"<{type(value).__name__} that cannot be shown>"


def _scalar(value: object) -> object:
    """One value without parts: null, booleans and numbers as they are (other libraries' too), the rest as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _real(value)
    with contextlib.suppress(TypeError):
        return _integer(operator.index(cast("SupportsIndex", value)))
    return _text(value)


def _real(value: float) -> object:
    """The number as its source spelt it, where that is known, and is JSON."""
    if isinstance(value, Number) and _NUMBER.fullmatch(value.spelling):
        return orjson.Fragment(value.spelling)
    return float(value)


def _integer(value: int) -> object:
    """Integers of 64 bits stay numbers; larger ones become text, because readers of JSON would round them."""
    if -(2**63) <= value < 2**64:
        return value
    # Python refuses to print more than 4,300 decimal digits, but not hexadecimal ones
    return str(value) if value.bit_length() < 14_000 else hex(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return clean(str.__str__(value))
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return clean(str(value))
