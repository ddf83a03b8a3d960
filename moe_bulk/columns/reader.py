"""Rename, fill in, fold: row → record, or the reason why it is not sent."""

from __future__ import annotations

import base64
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from moe_bulk.columns.foreign import Foreign, item_of
from moe_bulk.columns.shapes import Shapes
from moe_bulk.device import FIELDS, ID_KEPT, Device, Problem, fold
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Status
from moe_bulk.paths import at, head
from moe_bulk.record import NOTE, RAW_KEPT, Record, Row
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from moe_bulk.columns.columns import Columns
    from moe_bulk.columns.portion import Portion

REQUIRED: dict[str, tuple[str, ...]] = {
    "strict": ("customer_id", "device_id", "platform", "push_id"),
    "basic": ("customer_id", "device_id"),
}
WARNINGS_KEPT = 100

REASON_KEPT = 1000
"""Characters of a reason that was found elsewhere."""

_KNOWN = frozenset({*FIELDS, "type"})
_NO_FIELDS = frozenset({NOTE, "attributes"})
"""Names whose values are looked into, row by row."""
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


@dataclass(frozen=True, slots=True)
class Unsent:
    """A row that is settled without being sent: `INVALID`, `SKIPPED` or `SUPERSEDED`, and why."""

    row: Row
    status: Status
    reason: str
    customer_id: str | None = None
    device_id: str | None = None
    mapping: dict[str, object] | None = None
    keys: tuple[tuple[str, ...], ...] = ()
    """Of an invalid row: what can be told of the keys that it would have had (`Device.keys`)."""


Made: TypeAlias = "Record | Unsent"


class Reader:
    """Reads the rows of one run as `columns` says, and remembers what in them it has warned of.

    Where `spreads`, a row may hold several devices: `spread` rows first, then read each.
    """

    def __init__(
        self,
        columns: Columns,
        told: Iterable[str] = _KNOWN,
        warned: dict[str, str] | None = None,
        foreign: Foreign | None = None,
    ) -> None:
        if foreign is None and columns.in_use is not None:
            foreign = Foreign(columns.in_use, columns)
        self._columns = columns
        self._foreign = foreign
        self.spreads = foreign is not None and bool(foreign.preset.items)
        # Chosen once, so that rows without a preset pay nothing for it.
        self._make = self._read_row if foreign is None else self._read_foreign
        self._renamed = self._fields if foreign is None else foreign.fields
        self._where = columns.where
        self._renames = bool(columns.columns or columns.constants)
        self._plain = {name: column for name, column in columns.columns.items() if "." not in column}
        self._deep = {name: column for name, column in columns.columns.items() if "." in column}
        self._shapes = Shapes(self._plain, columns.constants)
        self._learns = foreign is None and not columns.where and not self._deep
        """True where a row's fields are its columns: nearly all rows of such a run take the short way."""
        self._validate = columns.validate
        self._mapping = columns.mapping
        # Names that need no warning: they are sent, in use, or were warned about.
        used = {*columns.columns.values(), *(column for column, _ in columns.where)}
        known = foreign.preset.names if foreign is not None else ()
        # What lies in `attributes` counts as the row's own: `_reach`.
        inner = (name.removeprefix("attributes.") for name in used)
        self._told = {*told, *used, *known, *map(head, used), *inner}
        self._warned: dict[str, str] = {} if warned is None else warned

    def check_header(self, source: str, header: Sequence[str]) -> list[str]:
        """What in a header is not sent; raises ConfigError where a field that is needed has no column."""
        for option, name in (
            *(("column", name) for name in self._columns.columns.values()),
            *(("where", w[0]) for w in self._where),
        ):
            if name not in header:
                raise ConfigError(
                    f"{source}: --{option} names a column {name!r} that is not there.{_columns(name, header)}"
                )
        if self._foreign is not None:
            self._check_foreign(self._foreign, source, header)
        for needed in REQUIRED[self._validate] if self._foreign is None else ():
            if needed not in self._columns.columns and needed not in self._columns.constants and needed not in header:
                raise ConfigError(
                    f"{source}: there is no column {needed}: name one with --column {needed}=COLUMN, or give all rows "
                    f"the same with --set {needed}=VALUE.{_columns(needed, header)}"
                )
        unknown = [name for name in header if name not in self._told]
        self._told.update(unknown)
        return [_not_sent("column", name) for name in unknown[:WARNINGS_KEPT]]

    def _check_foreign(self, foreign: Foreign, source: str, header: Sequence[str]) -> None:
        if (lacking := foreign.lacking(REQUIRED[self._validate], header)) is None:
            return
        needed, column = lacking
        missing = f"column {column}, from which --preset {foreign.preset.name} takes {needed}" if column else needed
        raise ConfigError(
            f"{source}: there is no {missing}: name one with --column {needed}=COLUMN, or give all rows the same with "
            f"--set {needed}=VALUE.{_columns(column or needed, header)}"
        )

    def warnings(self) -> list[str]:
        """What was seen in rows without a header and is not sent: once a field, a bounded number of fields."""
        return list(self._warned.values())

    def read(self, row: Row) -> Made:
        """Make the device of a row, or say why it is not sent. Bad data is a value: this never raises.

        A dead letter's row loses its note to `row.note`: `row.fields` is the row as it was read at first.
        """
        fields = row.fields
        if fields is None:
            return Unsent(row, Status.INVALID, row.problem or "the row cannot be read")
        try:
            if (device := self._shapes.device(fields)) is not None:
                return Record(row, device, self._mapping)
            return self._look_closer(row, fields)
        except Exception as error:  # noqa: BLE001  values of somebody else's classes may raise anything
            return Unsent(row, Status.INVALID, f"the row cannot be read: {type(error).__name__}")

    def read_all(self, rows: Sequence[Row]) -> list[Made]:
        """What `read` makes of each row of a file, at less cost; values of somebody else's classes may raise."""
        if not self._learns:
            return list(map(self.read, rows))
        made: list[Made] = []
        for some, devices in self._shapes.together(rows):
            made += map(self.read, some) if devices is None else map(Record, some, devices, repeat(self._mapping))
        return made

    def portion(self, rows: Sequence[Row]) -> Portion | None:
        """The devices of rows that are all as others were, by column; None where one has to be read by itself."""
        return self._shapes.portion(rows)

    def spread(self, rows: Sequence[Row]) -> list[Row]:
        """Each row as often as it holds devices: their positions have the same place and `item`s from 0."""
        if self._foreign is None or not self.spreads:
            return list(rows)
        return [each for row in rows for each in self._foreign.spread(row)]

    # -- one row -------------------------------------------------------------------------------------------------------

    def _look_closer(self, row: Row, fields: Mapping[str, object]) -> Made:
        if NOTE in fields and isinstance(note := fields[NOTE], dict):
            return self._read_letter(row, fields, note)
        made = self._make(row, fields)
        if self._learns and isinstance(made, Record) and _NO_FIELDS.isdisjoint(fields):
            self._shapes.learn(fields, made.device)
        return made

    def _read_row(self, row: Row, fields: Mapping[str, object]) -> Made:
        named = fields
        if "attributes" in fields:
            merged = _merged(fields)
            if isinstance(merged, str):
                return self._unsent(row, fields, Status.INVALID, merged)
            named = merged
        for column, value in self._where:
            found = named.get(column)
            if found is None and "." in column:
                found = _reach(named, column)
            if _as_text(found) != value:
                return self._unsent(row, named, Status.SKIPPED, f"--where {column}={value}: here it is {_shown(found)}")
        if not self._told.issuperset(named):
            self._warn(named)
        device = fold(self._renamed(named), self._validate)
        if isinstance(device, Device):
            return Record(row, device, self._mapping)
        return Unsent(
            row, Status.INVALID, device.reason, device.customer_id, device.device_id, self._mapping, device.keys
        )

    def _fields(self, named: Mapping[str, object]) -> Mapping[str, object]:
        if not self._renames:
            return named
        columns = {name: named.get(column) for name, column in self._plain.items()}
        for name, column in self._deep.items():
            columns[name] = _reach(named, column)
        return {**named, **columns, **self._columns.constants}

    def _read_foreign(self, row: Row, fields: Mapping[str, object]) -> Made:
        """As `_read_row`, through a preset: nothing becomes a field but what the preset or the command says is one."""
        foreign = cast("Foreign", self._foreign)
        try:
            found = foreign.view(row, fields)
        except ConfigError as error:
            return self._unsent(row, fields, Status.INVALID, str(error), self._mapping_of(foreign.item))
        if isinstance(found, str):
            return self._unsent(row, fields, Status.SKIPPED, found)
        view, item = found
        mapping = self._mapping_of(item)
        if "attributes" in view and "attributes" not in foreign.preset.names:
            merged = _merged(view)
            if isinstance(merged, str):
                return self._unsent(row, view, Status.INVALID, merged, mapping)
            view = merged
        return self._read_view(row, view, foreign, mapping)

    def _mapping_of(self, item: int | None) -> dict[str, object] | None:
        return self._mapping if item is None else {**(self._mapping or {}), "item": item}

    def _read_view(
        self, row: Row, view: Mapping[str, object], foreign: Foreign, mapping: dict[str, object] | None
    ) -> Made:
        for column, value in self._where:
            if _as_text(said := _reach(view, column)) != value:
                differs = f"--where {column}={value}: here it is {_shown(said)}"
                return self._unsent(row, view, Status.SKIPPED, differs, mapping)
        made = foreign.fields(view)
        if why := foreign.why_skipped(view, made):
            return self._unsent(row, view, Status.SKIPPED, why, mapping)
        if not self._told.issuperset(view):
            self._warn(view)
        device = fold(made, self._validate)
        if isinstance(device, Device):
            return Record(row, device, mapping)
        return Unsent(row, Status.INVALID, device.reason, device.customer_id, device.device_id, mapping, device.keys)

    def _unsent(
        self,
        row: Row,
        named: Mapping[str, object],
        status: Status,
        reason: str,
        mapping: dict[str, object] | None = None,
    ) -> Unsent:
        """A row that is not looked at any further, with its ids as they stand there."""
        fields = self._renamed(named)
        customer_id, device_id = _id(fields.get("customer_id")), _id(fields.get("device_id"))
        keys = _keys(fold(fields, self._validate)) if status is Status.INVALID else ()
        reason = _clean(reason)[:REASON_KEPT]
        return Unsent(row, status, reason, customer_id, device_id, mapping or self._mapping, keys)

    def _warn(self, fields: Mapping[str, object]) -> None:
        for name in fields:
            if name not in self._told and len(self._warned) < WARNINGS_KEPT:
                self._warned.setdefault(name, _not_sent("field", name))
                self._told.add(name)

    # -- dead letters --------------------------------------------------------------------------------------------------

    def _read_letter(self, row: Row, fields: Mapping[str, object], note: dict[str, object]) -> Made:
        """A dead letter: the row as it was read, with what an earlier run noted about it."""
        row.note = dict(note)
        own = {name: value for name, value in fields.items() if name != NOTE}
        if not own and ("raw" in note or "raw_base64" in note):
            return _unreadable_again(row, note)
        if "previous" in note:  # the row had a field of this name itself
            own[NOTE] = note["previous"]
        row.fields = own
        try:
            beneath = self._beneath(note.get("mapping"))
        except ConfigError as error:
            return self._unsent(row, own, Status.INVALID, f"{NOTE}.mapping: {error}")
        line = _superseded_by(note)
        if line and not self._columns.include_superseded:
            return beneath._unsent(row, own, Status.SUPERSEDED, f"line {line}, which came later, was accepted")  # noqa: SLF001  one of us
        return beneath._make(row, own)

    def _beneath(self, mapping: object) -> Reader:
        """Give the reader for a letter with this mapping: the row is read as it was, and warned of in our name."""
        if mapping is None:
            return self
        columns = self._columns.on_top_of(mapping)
        foreign = None
        if columns.in_use is not None:
            # Where we spread rows, this one was, unless it is one item already.
            item = item_of(mapping)
            foreign = Foreign(columns.in_use, columns, item, letter=not self.spreads)
        return Reader(columns, self._told, self._warned, foreign)


def _reach(named: Mapping[str, object], column: str) -> object:
    """What stands under a name that may have dots; what lay in `attributes` lies in the row itself by now."""
    found = at(named, column)
    if found is None and column.startswith("attributes."):
        return at(named, column.removeprefix("attributes."))
    return found


def _keys(folded: Device | Problem) -> tuple[tuple[str, ...], ...]:
    return folded.keys() if isinstance(folded, Device) else folded.keys


def _superseded_by(note: Mapping[str, object]) -> int:
    """The later line that was accepted, now or when the row failed before; 0 where there is none."""
    earlier = note.get("history")
    for each in (note, *(earlier if isinstance(earlier, list) else ())):
        line = each.get("superseded_by") if isinstance(each, dict) else None
        if type(line) is int and line > 0:
            return line
    return 0


def _unreadable_again(row: Row, note: Mapping[str, object]) -> Unsent:
    """A letter of a row that could not be parsed: it stays what it was until somebody writes the fields."""
    raw = b""
    if isinstance(text := note.get("raw"), str):
        raw = text.encode("utf-8", "backslashreplace")
    elif isinstance(text := note.get("raw_base64"), str):
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            raw = text.encode("utf-8", "backslashreplace")
    length, reason = note.get("raw_bytes"), note.get("reason")
    row.fields = None
    row.problem = _clean(reason)[:REASON_KEPT] if isinstance(reason, str) else "the row could not be read"
    row.raw = raw[:RAW_KEPT]
    row.raw_bytes = length if type(length) is int and length > len(raw) else len(raw)
    return Unsent(row, Status.INVALID, row.problem)


def _merged(fields: Mapping[str, object]) -> Mapping[str, object] | str:
    """A row in the API's own shape, made flat; or what is wrong with it.

    A column `attributes` that holds text is somebody else's: it stays where it is.
    """
    attributes = fields["attributes"]
    if isinstance(attributes, str) and attributes.strip():
        return fields
    flat = {name: value for name, value in fields.items() if name != "attributes"}
    if attributes is None or isinstance(attributes, str):
        return flat
    if not isinstance(attributes, Mapping):
        return f"attributes must be an object of fields; it is {_shown(attributes)}"
    for name, value in attributes.items():
        if _is_nothing(flat.get(name)):
            flat[name] = value
        elif not _is_nothing(value) and flat[name] != value:
            return f"{name} stands twice, as {_shown(flat[name])} and in attributes as {_shown(value)}"
    return flat


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _as_text(value: object) -> str | None:
    """What `--where` compares: text, numbers and booleans as JSON spells them, nothing as the empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else None


def _id(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return _clean(str(value).strip())[:ID_KEPT] or None


def _shown(value: object) -> str:
    return _BRIEF.repr(value)[:100]


def _clean(text: str) -> str:
    """The text without lone surrogates, which no line of JSON can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _columns(name: str, header: Sequence[str]) -> str:
    # A stranger's text on its way to a terminal: no control characters.
    header = [each if each.isprintable() else repr(each)[1:-1] for each in header]
    shown = ", ".join(each[:60] for each in header[:20]) + (" …" if len(header) > 20 else "")
    return f"{did_you_mean(name, header)} Its columns: {shown}"


def _not_sent(kind: Literal["column", "field"], name: object) -> str:
    text = _clean(name)[:60] if isinstance(name, str) else _shown(name)
    return f"{kind} {text!r} is not sent: it is none of the API's.{did_you_mean(text, FIELDS)}"
