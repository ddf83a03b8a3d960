"""Rows of one shape, folded together: what they repeat is folded once, and each is asked for its ids and tokens only.

Millions of rows have the same columns and a few hundred combinations of platform, model, versions and switches. What
is not such a row gets a closer look elsewhere: nothing is decided here that is not decided there.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from moe_bulk.columns.portion import Portion
from moe_bulk.device import ADVERTISING_IDS, NOTHING, PLATFORM_NAMES, Device
from moe_bulk.ids import all_plain, plain_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from moe_bulk.record import Row

    _Folded: TypeAlias = tuple[dict[str, str], tuple[str, str] | None]
    """The attributes without the token, and the advertising id with its column."""

SHAPES_KEPT = 200
"""Different tuples of names that rows may have: fields that are left out of JSON make many."""

COMBINATIONS_KEPT = 1000
"""Repeated values that are remembered at a time, in all shapes: half a megabyte."""

MOST_AT_ONCE, FEWEST_AT_ONCE = 200, 10
"""Rows that are tried together; where not even the fewest are all as others were, the rest goes one by one."""

_LONGEST = 1000
"""Characters of repeated values, and of those with constants: with longer ones, a body's size is looked at."""

_IDS = ("customer_id", "device_id", "push_id")
_REPEATED = ("platform", "model", "app_version", "os_version", "moe_push_opted", "moe_push_provisional_opted", "type")
_MAY_BE_THERE = (*ADVERTISING_IDS.values(), "forwarded_for")
_OWN = ("moe_gaid", "idfv")
_ITS_OWN = frozenset({*_IDS, *_MAY_BE_THERE})


class Shapes:
    """Knows again what `learn` has seen folded; `columns` says where fields stand that do not stand under their names.

    Fields with `constants` are the same in every row.
    """

    def __init__(self, columns: Mapping[str, str], constants: Mapping[str, str]) -> None:
        self._columns = columns
        self._constants = constants
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._combinations = 0
        self._at_once = MOST_AT_ONCE
        """So many rows are tried together: the fewer, the more often one of them needs a closer look."""

    def device(self, fields: Mapping[str, Any]) -> Device | None:
        """The device of a row that is as others were; None for one that needs a closer look."""
        try:
            shape = self._shapes[tuple(fields)]
            repeated, own = shape.folded[shape.repeated(fields)]
            customer_id, device_id, push_id = shape.ids(fields)
            if own is None or (other := fields[own[1]]) is None:
                other = ""
            if not device_id or not plain_ids(customer_id, push_id, other, customer_id + device_id + push_id + other):
                return None
            if shape.forwarded_for is not None and fields[shape.forwarded_for] not in NOTHING:
                return None
        except (KeyError, TypeError, AttributeError, ValueError):  # a shape that is new, or a value that is no text
            return None
        attributes = repeated.copy()
        attributes["push_id"] = push_id
        if own is not None and other:
            attributes[own[0]] = other
        return Device(customer_id, device_id, attributes)

    def together(self, rows: Sequence[Row]) -> Iterator[tuple[Sequence[Row], list[Device] | None]]:
        """The rows, some at a time, with the devices of these; None where they have to be read one by one.

        Read them before asking for more: what is learnt from them helps.
        """
        done = 0
        while done < len(rows):
            if self._at_once < FEWEST_AT_ONCE:
                self._at_once = 2 * FEWEST_AT_ONCE
                yield rows[done:], None
                return
            some = rows[done : done + self._at_once]
            devices = self.devices(some)
            self._at_once = self._at_once // 2 if devices is None else min(2 * self._at_once, MOST_AT_ONCE)
            yield some, devices
            done += len(some)

    def devices(self, rows: Sequence[Row]) -> list[Device] | None:
        """The devices of rows that have one shape, each as others were; None where one needs a closer look."""
        columns = self._by_column(rows)
        if columns is None:
            return None
        made = []
        for customer_id, device_id, push_id, other, (repeated, own) in zip(*columns, strict=True):
            attributes = repeated.copy()  # as in `device`, whose like would be called for each
            attributes["push_id"] = push_id
            if own is not None and other:
                attributes[own[0]] = other
            made.append(Device(customer_id, device_id, attributes))
        return made

    def portion(self, rows: Sequence[Row]) -> Portion | None:
        """The same devices by column, None in the same cases."""
        columns = self._by_column(rows)
        if columns is None:
            return None
        customer_ids, device_ids, push_ids, others, folded = columns
        kinds = [own[0] if own is not None else "" for _, own in folded]
        gaids, idfvs = (
            [other if kind == name else "" for other, kind in zip(others, kinds, strict=True)] for name in _OWN
        )
        rest = [attributes for attributes, _ in folded]
        return Portion([row.position for row in rows], customer_ids, device_ids, push_ids, gaids, idfvs, rest)

    def _by_column(self, rows: Sequence[Row]) -> _Columns | None:
        """What `devices` and `portion` are made of; None where a row needs a closer look, and without rows."""
        found = [row.fields for row in rows]
        try:
            (names,) = set(map(tuple, found))  # type: ignore[arg-type]  # None raises, which is what is wanted
            fields: list[dict[str, Any]] = found  # type: ignore[assignment]
            shape = self._shapes[names]
            folded = [shape.folded[said] for said in map(shape.repeated, fields)]
            customer_ids, device_ids, push_ids = zip(*map(shape.ids, fields), strict=True)
            others = [
                "" if own is None or (value := each[own[1]]) is None else value
                for each, (_, own) in zip(fields, folded, strict=True)
            ]
            if not all_plain(customer_ids, device_ids, push_ids, others):
                return None
            if shape.forwarded_for is not None and any(each[shape.forwarded_for] not in NOTHING for each in fields):
                return None
        except (KeyError, TypeError, AttributeError, ValueError):  # as in `device`
            return None
        return _Columns(customer_ids, device_ids, push_ids, others, folded)

    def learn(self, fields: Mapping[str, Any], device: Device) -> None:
        """Remember what became of the repeated values of a row in which nothing called for a word."""
        shape = self._shape(tuple(fields))
        attributes = {name: text for name, text in device.attributes.items() if name not in _ITS_OWN}
        if shape is None or attributes.get("platform") not in PLATFORM_NAMES:
            return
        said = shape.repeated(fields)
        if not all(value is None or type(value) is str for value in said):
            return
        if any(len("".join(filter(None, texts))) > _LONGEST for texts in (said, attributes.values())):
            return
        if self._combinations >= COMBINATIONS_KEPT:
            self._forget()
        self._combinations += 1
        name = ADVERTISING_IDS.get(attributes["platform"], "")
        # The token's place among the attributes is kept: two bodies of one device are the same to the byte.
        begun = {"platform": attributes.pop("platform"), "push_id": ""} | attributes
        shape.folded[said] = begun, ((name, shape.columns[name]) if name in shape.columns else None)

    def _forget(self) -> None:
        self._combinations = 0
        for shape in self._shapes.values():
            shape.folded.clear()

    def _shape(self, names: tuple[str, ...]) -> _Shape | None:
        """The shape of rows with these names, a new one if need be; None where they always need a closer look."""
        if (known := self._shapes.get(names)) is not None:
            return known
        stand = {field: self._columns.get(field, field) for field in (*_IDS, *_REPEATED, *_MAY_BE_THERE)}
        columns = {field: column for field, column in stand.items() if column in names and field not in self._constants}
        if len(self._shapes) >= SHAPES_KEPT or not columns.keys() >= set(_IDS) or self._constants.keys() & _ITS_OWN:
            return None
        self._shapes[names] = shape = _Shape(columns)
        return shape


class _Columns(NamedTuple):
    """What was found in rows of one shape: the ids, the token, the advertising id or nothing, what is repeated."""

    customer_ids: Sequence[str]
    device_ids: Sequence[str]
    push_ids: Sequence[str]
    others: Sequence[str]
    folded: Sequence[_Folded]


class _Shape:
    """Where fields stand in the rows of one shape, and what became of their repeated values."""

    __slots__ = ("columns", "folded", "forwarded_for", "ids", "repeated")

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = columns
        self.ids: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*(columns[name] for name in _IDS))
        self.repeated = _getter([columns[name] for name in _REPEATED if name in columns])
        self.forwarded_for = columns.get("forwarded_for")
        self.folded: dict[tuple[Any, ...], _Folded] = {}
        """By the repeated values."""


def _getter(columns: list[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if not columns:
        return lambda _: ()
    return itemgetter(*columns, columns[0])  # one more, for a single one would be no tuple
