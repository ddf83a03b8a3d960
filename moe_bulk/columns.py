"""Rename, fill in, fold: row → record, or the reason why it is not sent."""

from __future__ import annotations

import base64
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, TypeAlias, get_args

from moe_bulk.device import FIELDS, ID_KEPT, Device, Problem, Validation, fold
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Status
from moe_bulk.record import NOTE, RAW_KEPT, Record, Row

REQUIRED: dict[str, tuple[str, ...]] = {
    "strict": ("customer_id", "device_id", "platform", "push_id"),
    "basic": ("customer_id", "device_id"),
}
WARNINGS_KEPT = 100

REASON_KEPT = 1000
"""Characters of a reason that was found elsewhere."""

_KNOWN = frozenset({*FIELDS, "type"})
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


@dataclass(frozen=True, slots=True)
class Columns:
    """How rows become devices: which column holds which field, what is the same for all, which rows are left out.

    `columns` maps fields to columns, `constants` fields to values (they replace whatever the row has), `where` keeps
    only rows whose columns have these values. Dead letters carry the mapping with which they were read; it is applied
    again, beneath this one.

    >>> Columns.parse(column=["customer_id=uid"], set_=["platform=iOS"]).columns
    {'customer_id': 'uid'}
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    where: tuple[tuple[str, str], ...] = ()
    validate: Validation = "strict"
    include_superseded: bool = False
    mapping: dict[str, object] | None = field(init=False, repr=False, compare=False)
    """What is needed to read a row in the same way again; None where plain field names did."""

    def __post_init__(self) -> None:
        for name in (*self.columns, *self.constants):
            if name not in FIELDS:
                raise ConfigError(f"there is no field {name!r}.{_closest(name, FIELDS)} Fields: {', '.join(FIELDS)}")
        if self.validate not in get_args(Validation):
            raise ConfigError(f"there is no validation {self.validate!r}: use strict or basic")
        for name, column in self.columns.items():
            if not column:
                raise ConfigError(f"{name} is given no column: write --column {name}=COLUMN")
            if name in self.constants:
                raise ConfigError(f"{name} has both a column and a constant: keep one of --column and --set")
        object.__setattr__(self, "mapping", self._mapping())

    @classmethod
    def parse(
        cls,
        column: Sequence[str] = (),
        set_: Sequence[str] = (),
        where: Sequence[str] = (),
        *,
        validate: Validation = "strict",
        include_superseded: bool = False,
    ) -> Columns:
        """Read the texts of `--column FIELD=COLUMN`, `--set FIELD=VALUE` and `--where COLUMN=VALUE`."""
        return cls(
            {name: said.strip() for name, said in _pairs("--column", "FIELD=COLUMN", column).items()},
            _pairs("--set", "FIELD=VALUE", set_),
            tuple(_pairs("--where", "COLUMN=VALUE", where).items()),
            validate,
            include_superseded,
        )

    def _mapping(self) -> dict[str, object] | None:
        said: dict[str, object] = {}
        if self.columns:
            said["columns"] = dict(self.columns)
        if self.constants:
            said["set"] = dict(self.constants)
        if self.validate != "strict":
            said["validate"] = self.validate
        return said or None

    def on_top_of(self, mapping: object) -> Columns:
        """This mapping, and beneath it the one that a dead letter carries. Raises ConfigError where that is none."""
        if not isinstance(mapping, dict):
            raise ConfigError("it must be an object with columns and set")
        columns, constants = _texts(mapping, "columns"), _texts(mapping, "set")
        for name in (*self.columns, *self.constants):
            columns.pop(name, None)
            constants.pop(name, None)
        validate: Validation = "basic" if "basic" in (self.validate, mapping.get("validate")) else "strict"
        return Columns(
            {**columns, **self.columns}, {**constants, **self.constants}, self.where, validate, self.include_superseded
        )


class Reader:
    """Reads the rows of one run as `columns` says, and remembers what in them it has warned of."""

    def __init__(self, columns: Columns, told: Iterable[str] = _KNOWN, warned: dict[str, str] | None = None) -> None:
        self._columns = columns
        self._where = columns.where
        self._renames = bool(columns.columns or columns.constants)
        self._validate = columns.validate
        self._mapping = columns.mapping
        # Names that need no warning: they are sent, in use, or were warned about.
        self._told = {*told, *columns.columns.values(), *(column for column, _ in columns.where)}
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
        for needed in REQUIRED[self._validate]:
            if needed not in self._columns.columns and needed not in self._columns.constants and needed not in header:
                raise ConfigError(
                    f"{source}: there is no column {needed}: name one with --column {needed}=COLUMN, or give all rows "
                    f"the same with --set {needed}=VALUE.{_columns(needed, header)}"
                )
        unknown = [name for name in header if name not in self._told]
        self._told.update(unknown)
        return [_not_sent("column", name) for name in unknown[:WARNINGS_KEPT]]

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
            if NOTE in fields and isinstance(note := fields[NOTE], dict):
                return self._read_letter(row, fields, note)
            return self._read_row(row, fields)
        except Exception as error:  # noqa: BLE001  values of somebody else's classes may raise anything
            return Unsent(row, Status.INVALID, f"the row cannot be read: {type(error).__name__}")

    # -- one row -------------------------------------------------------------------------------------------------------

    def _read_row(self, row: Row, fields: Mapping[str, object]) -> Made:
        named = fields
        if "attributes" in fields:
            merged = _merged(fields)
            if isinstance(merged, str):
                return self._unsent(row, fields, Status.INVALID, merged)
            named = merged
        for column, value in self._where:
            if _as_text(found := named.get(column)) != value:
                return self._unsent(row, named, Status.SKIPPED, f"--where {column}={value}: here it is {_shown(found)}")
        if not self._told.issuperset(named):
            self._warn(named)
        device = fold(self._renamed(named), self._validate)
        if isinstance(device, Device):
            return Record(row, device, self._mapping)
        return Unsent(
            row, Status.INVALID, device.reason, device.customer_id, device.device_id, self._mapping, device.keys
        )

    def _renamed(self, named: Mapping[str, object]) -> Mapping[str, object]:
        if not self._renames:
            return named
        columns = {name: named.get(column) for name, column in self._columns.columns.items()}
        return {**named, **columns, **self._columns.constants}

    def _unsent(self, row: Row, named: Mapping[str, object], status: Status, reason: str) -> Unsent:
        """A row that is not looked at any further, with its ids as they stand there."""
        fields = self._renamed(named)
        customer_id, device_id = _id(fields.get("customer_id")), _id(fields.get("device_id"))
        keys = _keys(fold(fields, self._validate)) if status is Status.INVALID else ()
        return Unsent(row, status, _clean(reason)[:REASON_KEPT], customer_id, device_id, self._mapping, keys)

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
        return beneath._read_row(row, own)  # noqa: SLF001  one of us

    def _beneath(self, mapping: object) -> Reader:
        """Give the reader for a letter with this mapping: the row is read as it was, and warned of in our name."""
        return self if mapping is None else Reader(self._columns.on_top_of(mapping), self._told, self._warned)


def _keys(folded: Device | Problem) -> tuple[tuple[str, ...], ...]:
    return folded.keys() if isinstance(folded, Device) else folded.keys


def _texts(mapping: Mapping[str, object], name: str) -> dict[str, str]:
    found = mapping.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise ConfigError(f"{name} must map fields to text")
    return dict(found)


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


def _pairs(option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"{option} {text!r}: write it like {option} {form}")
        if name in pairs:
            raise ConfigError(f"{option} names {name} twice: {pairs[name]!r} and {value!r}")
        pairs[name] = value
    return pairs


def _closest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def _columns(name: str, header: Sequence[str]) -> str:
    # A stranger's text on its way to a terminal: no control characters.
    header = [each if each.isprintable() else repr(each)[1:-1] for each in header]
    shown = ", ".join(each[:60] for each in header[:20]) + (" …" if len(header) > 20 else "")
    return f"{_closest(name, header)} Its columns: {shown}"


def _not_sent(kind: Literal["column", "field"], name: object) -> str:
    text = _clean(name)[:60] if isinstance(name, str) else _shown(name)
    return f"{kind} {text!r} is not sent: it is none of the API's.{_closest(text, FIELDS)}"
