"""Rows of a known export: how its preset, and what was said on top of it, make fields and devices of a row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError
from moe_bulk.paths import at
from moe_bulk.record import NOTE, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from moe_bulk.columns.columns import Columns
    from moe_bulk.presets import Preset

_KEPT = 1000
_SHORT = 100

View = tuple["Mapping[str, object]", int | None]
"""A row as one of its devices is read from it, and which one that is where it can hold several."""


class Foreign:
    """Reads rows as `preset` says, and as `columns` says above it.

    A dead letter is one device of its row: `item` says which one, where the letter does.
    """

    def __init__(self, preset: Preset, columns: Columns, item: int | None = None, *, letter: bool = False) -> None:
        self.preset = preset
        self.item = item
        self._letter = letter
        self._constants = {
            **{field: said for field, said in preset.constants.items() if field not in columns.columns},
            **columns.constants,
        }
        own = {field: (column,) for field, column in columns.columns.items()}
        self.sources = {
            field: names for field, names in {**preset.columns, **own}.items() if field not in self._constants
        }
        # What values mean is known of the preset's own columns, not of others that somebody names.
        meant = preset.values.keys() & preset.columns.keys() - own.keys()
        self._plan = [
            (
                field,
                [(name, "." in name) for name in names],
                _remembered(partial(preset.value, field)) if field in meant else None,
            )
            for field, names in self.sources.items()
        ]
        self._skips = [(column, _remembered(partial(preset.why_no_device, column))) for column in preset.skip]
        self._without = preset.without if columns.validate == "strict" else {}  # else what is there is enough
        self._longest = max(map(len, preset.nothing), default=0)
        self._last: tuple[object, list[Mapping[str, object]] | str] | None = None

    def fields(self, view: Mapping[str, object]) -> dict[str, object]:
        """The fields of a device, each from the first of its columns that says something."""
        made = dict[str, object]()
        for field, names, meaning in self._plan:
            for name, is_path in names:
                found = view.get(name)
                if found is None and is_path:
                    found = at(view, name)
                if found is None or (type(found) is str and self._says_nothing(found)):
                    continue
                made[field] = found if meaning is None else meaning(found)
                break
        return made | self._constants

    def why_skipped(self, view: Mapping[str, object], fields: Mapping[str, object]) -> str | None:
        """Why a row is no device, by its columns and by the fields that were made of them; None where it is one."""
        for column, reason in self._skips:
            if (why := reason(at(view, column))) is not None:
                return str(why)
        for field, why in self._without.items():
            if self.preset.says_nothing(fields.get(field)):
                return why
        return None

    def _says_nothing(self, text: str) -> bool:
        # What is longer than all that says nothing, with no space around it, need not be looked at: most texts.
        if len(text) > self._longest and not text[0].isspace() and not text[-1].isspace():
            return False
        return self.preset.says_nothing(text)

    def lacking(self, needed: Sequence[str], header: Sequence[str]) -> tuple[str, str] | None:
        """A field that is needed and the column that it is read from, where the header has none; None where it has."""
        for field in needed:
            names = self.sources.get(field, ())
            if field not in self._constants and not any(name in header for name in names):
                return field, " or ".join(names)
        return None

    # -- several devices in one row --------------------------------------------------------------------------------

    def spread(self, row: Row) -> list[Row]:
        """The row as often as it holds devices, `item` by `item`; once where it holds none, or is wrong."""
        fields = row.fields
        if fields is None or _is_one_item(fields):
            return [row]
        try:
            views = self._views(fields)
        except Exception:  # noqa: BLE001  values of somebody else's classes may raise anything: reading it says so
            return [row]
        if isinstance(views, str) or len(views) < 2:
            return [row]
        return [Row(row.position._replace(item=item), fields) for item in range(len(views))]

    def view(self, row: Row, fields: Mapping[str, object]) -> View | str:
        """What the device of this row is read from, or why there is none; ConfigError where one cannot be told."""
        if not self.preset.items:
            return fields, None
        views = self._views(fields)
        if isinstance(views, str):
            raise ConfigError(views)
        if not views:
            return f"there is no device in it: {' and '.join(self.preset.items)} hold none"
        item = self.item if self.item is not None else row.position.item
        if self._letter and self.item is None and len(views) > 1:
            raise ConfigError(
                f"it holds {len(views):,} devices now, and a dead letter is one: upload it with "
                f"--preset {self.preset.name}"
            )
        if item >= len(views):
            raise ConfigError(f"item {item} is not in it any more: it holds {len(views):,} devices")
        return views[item], item

    def _views(self, fields: Mapping[str, object]) -> list[Mapping[str, object]] | str:
        # The devices of one row are asked for one after the other.
        if self._last is None or self._last[0] is not fields:
            self._last = fields, self.preset.views(fields)
        return self._last[1]


def _remembered(meaning: Callable[[object], object]) -> Callable[[object], object]:
    """The same, with its answers for short texts kept: columns that mean something have few different ones."""
    known: dict[str, object] = {}

    def remembered(found: object) -> object:
        if type(found) is not str:
            return meaning(found)
        if found not in known:
            if len(known) >= _KEPT or len(found) > _SHORT:
                return meaning(found)
            known[found] = meaning(found)
        return known[found]

    return remembered


def item_of(mapping: object) -> int | None:
    """Which device of its row a dead letter is, where its mapping says so; ConfigError where that makes no sense."""
    item = mapping.get("item") if isinstance(mapping, dict) else None
    if item is not None and (type(item) is not int or item < 0):
        raise ConfigError("item must be a whole number from 0")
    return item


def _is_one_item(fields: Mapping[str, object]) -> bool:
    note = fields.get(NOTE)
    mapping = note.get("mapping") if isinstance(note, dict) else None
    return isinstance(mapping, dict) and mapping.get("item") is not None
