"""What a typed cell becomes: text, whole numbers, booleans and nulls as JSON has them, nothing that must be guessed.

Databases, tables in memory and Parquet know more types than JSON does. One rule for all of them, so that the same table
gives the same rows, wherever it comes from:

* missing values in all their spellings (None, NaN, NaT, NA) are null; text, booleans and integers of 64 bits stay;
* larger integers and decimals are the text of all their digits; other numbers stay numbers, which no text field takes;
* dates, times, UUIDs and whatever else is one value become the text that Python shows;
* bytes are text where they are UTF-8, and `{"base64": …}` otherwise, which no field takes;
* lists and mappings keep their form.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from moe_bulk.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXACT: Final[frozenset[type]] = frozenset({str, bool, type(None)})
_MISSING: Final = frozenset({"NAType", "NaTType"})
"""What pandas calls the types of NA and NaT: it is not imported to know them."""
_TIMES: Final = frozenset({"datetime64", "timedelta64"})
"""What numpy calls them: as Python's own numbers they would lose their unit."""


def plain(value: object) -> object:
    """The value as a row has it.

    >>> from datetime import date
    >>> plain([date(2026, 11, 25), float("nan"), b"text", 2**64])
    ['2026-11-25', None, 'text', '18446744073709551616']
    """
    if type(value) in _EXACT:
        return value
    if is_missing(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)):
        return [plain(each) for each in value]
    return _single(value)


def is_missing(value: object) -> bool:
    """Whether it is NaN, or what pandas and numpy have for a value that is not there."""
    if isinstance(value, (float, Decimal)):
        return value != value  # noqa: PLR0124  NaN is not itself
    name = type(value).__name__
    return name in _MISSING or (name in _TIMES and str(value) == "NaT")


def without_missing(fields: dict[str, object]) -> dict[str, object]:
    """The row with nulls where values are missing in another spelling."""
    if not _EXACT.issuperset(map(type, fields.values())):
        for name, value in fields.items():
            if is_missing(value):
                fields[name] = None
    return fields


def _single(value: object) -> object:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _text_or_base64(bytes(value))
    if isinstance(value, Decimal):
        return format(value, "f")
    if hasattr(value, "ndim") and type(value).__name__ not in _TIMES:  # numbers of numpy, and arrays of them
        ours = getattr(value, "tolist", lambda: value)()
        if type(ours) is not type(value):
            return plain(ours)
    return str(value)


def _number(value: float) -> object:
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    return float(value)


def _text_or_base64(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def refuse_twins(table: str, names: Iterable[str]) -> None:
    """Raise SourceError where two columns of a table have one name: a row could hold only one of them."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SourceError(f"{table} names the column {name[:80]!r} twice: give each a name of its own")
        seen.add(name)
