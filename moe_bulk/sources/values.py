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
    from collections.abc import Iterable, Sequence

_EXACT: Final[frozenset[type]] = frozenset({str, bool, type(None)})
_MISSING: Final = frozenset({"NAType", "NaTType"})
"""What pandas calls the types of NA and NaT: it is not imported to know them."""


def plain(value: object) -> object:
    """The value as a row has it.

    >>> from datetime import date
    >>> plain([date(2026, 11, 25), float("nan"), b"text", 2**64])
    ['2026-11-25', None, 'text', '18446744073709551616']
    """
    kind = type(value)
    if kind in _EXACT or kind.__name__ in _MISSING:
        return value if kind in _EXACT else None
    if isinstance(value, float):
        return None if value != value else float(value)  # noqa: PLR0124  NaN is not itself
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    return _composed(value) if isinstance(value, (Mapping, list, tuple, AbstractSet)) else _single(value)


def _composed(value: Mapping[object, object] | Sequence[object] | AbstractSet[object]) -> object:
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value]


def _single(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _text_or_base64(bytes(value))
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else None
    for one in ("item", "tolist"):  # a number of numpy's, or several
        if callable(act := getattr(value, one, None)) and getattr(value, "ndim", None) == (0 if one == "item" else 1):
            return plain(act())
    return str(value)


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
