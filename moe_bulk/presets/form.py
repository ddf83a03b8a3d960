"""The form of a preset: which column is which field, what its values mean, and which rows are no devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moe_bulk.device import FIELDS
from moe_bulk.paths import at, head
from moe_bulk.presets.table import PresetTable

MOST_ITEMS: Final = 1000
"""Devices that one row may hold: MoEngage blocks a user who has more."""

_KEYS = ("about", "columns", "set", "values", "skip", "without", "nothing", "ask", "ignored", "items", "join")
_ABOUT_KEPT = 300


@dataclass(frozen=True)
class Preset:
    """How the rows of one kind of export become devices.

    `columns` names for each field the columns that may hold it: the first one that says something counts. `values`
    says what the values of a field's column mean, `skip` which values of a column make a row no device, `without`
    which fields it is none without, both with the reason. `nothing` are texts that say nothing. `ask` are fields that
    must be given with the command, and why. `items` are lists in a row whose elements are its devices, `join` is the
    field by which elements of several lists belong together. Values are compared without case and surrounding space.
    """

    name: str
    about: str
    columns: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]
    skip: Mapping[str, Mapping[str, str]]
    without: Mapping[str, str]
    nothing: frozenset[str]
    ask: Mapping[str, str]
    ignored: tuple[str, ...]
    items: tuple[str, ...]
    join: str
    table: Mapping[str, object]
    """As it is written."""
    built_in: bool = False

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, object], *, built_in: bool = False) -> Preset:
        """The preset that a TOML table holds; ConfigError, which says where, for what is none."""
        read = PresetTable(name, table, _KEYS)
        preset = cls(
            name=name,
            about=read.text("about")[:_ABOUT_KEPT],
            columns=read.lists("columns"),
            constants=read.pairs("set"),
            values={field: _by_comparable_text(said) for field, said in read.maps("values").items()},
            skip={column: _by_comparable_text(said) for column, said in read.maps("skip").items()},
            without=read.pairs("without"),
            nothing=frozenset(map(comparable, read.texts("nothing"))),
            ask=read.pairs("ask"),
            ignored=read.texts("ignored"),
            items=read.texts("items"),
            join=read.text("join"),
            table=dict(table),
            built_in=built_in,
        )
        for part in ("columns", "set", "values", "without", "ask"):
            read.refuse_unknown(part, read.section(part), FIELDS, "field")
        if not preset.columns:
            raise read.wrong("columns", 'must say which column is which field, such as customer_id = "user_id"')
        if both := sorted(preset.columns.keys() & preset.constants.keys()):
            raise read.wrong(f"set.{both[0]}", "has a column, too: keep one of them")
        if len(preset.items) > 1 and not preset.join:
            raise read.wrong("items", "names several lists: say in join by which field their elements belong together")
        return preset

    @property
    def names(self) -> frozenset[str]:
        """What it knows of a row, be it sent or not: the row's own fields, and names that reach into them."""
        used = {*(name for columns in self.columns.values() for name in columns), *self.skip}
        return frozenset({*used, *map(head, used), *self.items, *self.ignored})

    @property
    def expected(self) -> tuple[str, ...]:
        """The columns that it reads; an element's field as `devices[].model`."""
        names = [*(name for columns in self.columns.values() for name in columns), *self.skip]
        return tuple(dict.fromkeys(name.replace(".", "[].", 1) if head(name) in self.items else name for name in names))

    # -- a row that holds several devices --------------------------------------------------------------------------

    def views(self, fields: Mapping[str, object]) -> list[Mapping[str, object]] | str:
        """The row once for each device in it, with an element in place of each list; or why it cannot be read so."""
        lists: list[list[Mapping[str, object]]] = []
        for name in self.items:
            found = fields.get(name)
            if found is not None and not isinstance(found, (list, tuple)):
                return f"{name} must be an array of objects"
            elements = [each for each in found or () if each is not None]
            if not all(isinstance(each, Mapping) for each in elements):
                return f"{name} must be an array of objects"
            lists.append(elements)
        joined, nothing = self._joined(lists), dict.fromkeys(self.items)
        if len(joined) > MOST_ITEMS:
            return f"the row holds {len(joined):,} devices: MoEngage blocks a user who has more than {MOST_ITEMS:,}"
        return [{**fields, **nothing, **parts} for parts in joined]

    def _joined(self, lists: Sequence[Sequence[Mapping[str, object]]]) -> list[dict[str, object]]:
        """The first list's elements, each with those of the others that belong to it; then what is left of those."""
        joined: list[dict[str, Mapping[str, object]]] = [{self.items[0]: element} for element in lists[0]]
        for name, elements in zip(self.items[1:], lists[1:], strict=True):
            known = {self._key(element): element for element in reversed(elements)}
            known.pop("", None)
            met = set[str]()
            for parts in joined:
                key = next(filter(None, map(self._key, parts.values())), "")
                if key in known:
                    parts[name] = known[key]
                    met.add(key)
            joined += [{name: element} for element in elements if self._key(element) not in met]
        return [dict(parts) for parts in joined]

    def _key(self, element: Mapping[str, object]) -> str:
        found = at(element, self.join)
        return "" if found is None else comparable(str(found))

    # -- a row that holds one --------------------------------------------------------------------------------------

    def value(self, field: str, found: object) -> object:
        """What a value of a field's column means."""
        meanings = self.values.get(field)
        return found if meanings is None or found is None else meanings.get(_comparable_text(found), found)

    def says_nothing(self, found: object) -> bool:
        """True for null, the empty text, and what this export writes in their place."""
        return found is None or (isinstance(found, str) and (not (text := comparable(found)) or text in self.nothing))

    def why_no_device(self, column: str, found: object) -> str | None:
        """Why this value of a column makes a row no device; None where it does not."""
        why = self.skip[column].get("" if found is None else _comparable_text(found))
        return f"{column} is {found}: {why}" if why else None


def comparable(text: str) -> str:
    """The text without case and surrounding space: so it is compared."""
    return text.strip().casefold()


def _comparable_text(found: object) -> str:
    """The text under which `values` and `skip` have a value of a row."""
    if isinstance(found, float) and found.is_integer():  # a spreadsheet's or a data frame's way to write 1
        return str(int(found))
    return comparable(str(found))


def _by_comparable_text(said: Mapping[str, str]) -> dict[str, str]:
    return {comparable(text): meaning for text, meaning in said.items()}
