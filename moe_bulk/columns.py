"""Rename, fill in, fold: row → record, or the reason why it is not sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, TypeAlias, get_args

from moe_bulk.device import FIELDS, Device, Problem, Validation, fold
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Status
from moe_bulk.record import RAW_KEPT, Record, Row

NOTE = "_moe_bulk"
"""The field that a dead letter has on top of its row's own."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "strict": ("customer_id", "device_id", "platform", "push_id"),
    "basic": ("customer_id", "device_id"),
}
WARNINGS_KEPT = 100

_KNOWN = frozenset({*FIELDS, "type"})
_PASSED = _KNOWN | {"attributes"}


@dataclass(frozen=True, slots=True)
class Unsent:
    """A row that is settled without being sent: `INVALID`, `SKIPPED` or `SUPERSEDED`, and why."""

    row: Row
    status: Status
    reason: str
    customer_id: str | None = None
    device_id: str | None = None
    mapping: dict[str, object] | None = None


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
    _used: frozenset[str] = field(init=False, repr=False, compare=False)
    _seen: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (*self.columns, *self.constants):
            if name not in FIELDS:
                raise ConfigError(f"there is no field {name!r}.{_closest(name, FIELDS)} Fields: {', '.join(FIELDS)}")
        if self.validate not in get_args(Validation):
            raise ConfigError(f"there is no validation {self.validate!r}: use strict or basic")
        for name in self.columns:
            if name in self.constants:
                raise ConfigError(f"{name} has both a column and a constant: keep one of --column and --set")
        object.__setattr__(self, "mapping", self._mapping())
        used = frozenset({*self.columns.values(), *(column for column, _ in self.where)})
        object.__setattr__(self, "_used", used)

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
            _pairs("--column", "FIELD=COLUMN", column),
            _pairs("--set", "FIELD=VALUE", set_),
            tuple(_pairs("--where", "COLUMN=VALUE", where).items()),
            validate,
            include_superseded,
        )

    def check_header(self, source: str, header: Sequence[str]) -> list[str]:
        """What in a header is not sent; raises ConfigError where a field that is needed has no column."""
        for option, name in (
            *(("column", name) for name in self.columns.values()),
            *(("where", w[0]) for w in self.where),
        ):
            if name not in header:
                raise ConfigError(
                    f"{source}: --{option} names a column {name!r} that is not there.{_columns(name, header)}"
                )
        for needed in REQUIRED[self.validate]:
            if needed not in self.columns and needed not in self.constants and needed not in header:
                raise ConfigError(
                    f"{source}: there is no column {needed}: name one with --column {needed}=COLUMN, or give all rows "
                    f"the same with --set {needed}=VALUE.{_columns(needed, header)}"
                )
        return [_not_sent("column", name) for name in header if name not in _KNOWN and name not in self._used]

    def warnings(self) -> list[str]:
        """What was seen in rows without a header and is not sent: once a field, a bounded number of fields."""
        return list(self._seen.values())

    def read(self, row: Row) -> Made:
        """Make the device of a row, or say why it is not sent. Bad data is a value: this never raises."""
        fields = row.fields
        if fields is None:
            return Unsent(row, Status.INVALID, row.problem or "the row cannot be read")
        if NOTE in fields:
            return self._read_letter(row, fields)
        return self._read_row(row, fields)

    # -- one row -------------------------------------------------------------------------------------------------------

    def _read_row(self, row: Row, fields: Mapping[str, object]) -> Made:
        mapping = self.mapping
        for column, value in self.where:
            if str(fields.get(column, "")) != value:
                return Unsent(row, Status.SKIPPED, f"--where {column}={value}: here it is {fields.get(column)!r}"[:200])
        named: Mapping[str, object] | str = fields
        if "attributes" in fields:
            named = _merged(fields)
        if isinstance(named, str):
            return Unsent(
                row, Status.INVALID, named, _text(fields.get("customer_id")), _text(fields.get("device_id")), mapping
            )
        if not named.keys() <= _KNOWN:
            self._warn(named)
        if self.columns or self.constants:
            named = {**named, **{name: named.get(column) for name, column in self.columns.items()}, **self.constants}
        device = fold(named, self.validate)
        if isinstance(device, Device):
            return Record(row, device, mapping)
        return _invalid(row, device, mapping)

    def _warn(self, fields: Mapping[str, object]) -> None:
        for name in fields:
            if (
                name not in _PASSED
                and name not in self._seen
                and len(self._seen) < WARNINGS_KEPT
                and name not in self._used
            ):
                self._seen[name] = _not_sent("field", name)

    # -- dead letters --------------------------------------------------------------------------------------------------

    def _read_letter(self, row: Row, fields: dict[str, object]) -> Made:
        """A dead letter: the row as it was read, with what an earlier run noted about it."""
        note = fields[NOTE]
        row.fields = {name: value for name, value in fields.items() if name != NOTE}
        if not isinstance(note, dict):
            return Unsent(row, Status.INVALID, f"{NOTE} is moe_bulk's own field and must be an object")
        if note.get("superseded_by") is not None and not self.include_superseded:
            return Unsent(row, Status.SUPERSEDED, f"line {note['superseded_by']}, which came later, was accepted")
        if not row.fields and ("raw" in note or "raw_base64" in note):
            return _unreadable_again(row, note)
        try:
            beneath = self.on_top_of(note.get("mapping"))
        except ConfigError as error:
            return Unsent(row, Status.INVALID, f"{NOTE}.mapping: {error}")
        return beneath._read_row(row, row.fields)  # noqa: SLF001  one of us

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
        if mapping is None:
            return self
        if not isinstance(mapping, dict):
            raise ConfigError("it must be an object with columns and set")
        columns, constants = _texts(mapping, "columns"), _texts(mapping, "set")
        for name in (*self.columns, *self.constants):
            columns.pop(name, None)
            constants.pop(name, None)
        validate: Validation = "basic" if "basic" in (self.validate, mapping.get("validate")) else "strict"
        made = Columns(
            {**columns, **self.columns}, {**constants, **self.constants}, self.where, validate, self.include_superseded
        )
        object.__setattr__(made, "_seen", self._seen)
        return made


def _texts(mapping: Mapping[str, object], name: str) -> dict[str, str]:
    found = mapping.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ConfigError(f"{name} must map fields to text")
    return dict(found)


def _unreadable_again(row: Row, note: Mapping[str, object]) -> Unsent:
    """A letter of a row that could not be parsed: it stays what it was until somebody repairs the source."""
    raw = b""
    if isinstance(text := note.get("raw"), str):
        raw = text.encode("utf-8", "backslashreplace")
    elif isinstance(text := note.get("raw_base64"), str):
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = text.encode("utf-8", "backslashreplace")
    length = note.get("raw_bytes")
    row.fields = None
    row.problem = str(note.get("reason") or "the row could not be read")
    row.raw = raw[:RAW_KEPT]
    row.raw_bytes = length if type(length) is int else len(raw)
    return Unsent(row, Status.INVALID, row.problem)


def _merged(fields: Mapping[str, object]) -> dict[str, object] | str:
    """A row in the API's own shape, made flat; or what is wrong with it."""
    attributes = fields["attributes"]
    flat = {name: value for name, value in fields.items() if name != "attributes"}
    if attributes is None or attributes == "":
        return flat
    if not isinstance(attributes, Mapping):
        return f"attributes must be an object of fields; it is {attributes!r}"[:200]
    for name, value in attributes.items():
        if flat.get(name) not in (None, "", value):
            return f"{name} stands twice, as {flat[name]!r} and in attributes as {value!r}"[:300]
        flat[name] = value
    return flat


def _invalid(row: Row, problem: Problem, mapping: dict[str, object] | None) -> Unsent:
    return Unsent(row, Status.INVALID, problem.reason, problem.customer_id, problem.device_id, mapping)


def _text(value: object) -> str | None:
    return value[:512] if isinstance(value, str) else None


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
    shown = ", ".join(header[:20]) + (" …" if len(header) > 20 else "")
    return f"{_closest(name, header)} Its columns: {shown}"


def _not_sent(kind: Literal["column", "field"], name: str) -> str:
    return f"{kind} {name[:60]!r} is not sent: it is none of the API's.{_closest(name, FIELDS)}"
