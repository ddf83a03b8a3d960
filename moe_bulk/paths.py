"""Names with dots: `device.name` is the field `name` of the object `device`, unless a column is called so."""

from __future__ import annotations

from collections.abc import Mapping


def at(fields: Mapping[str, object], name: str) -> object:
    """What stands under this name; None where nothing does. A column whose literal name has the dots wins.

    >>> at({"device": {"os": {"name": "iOS"}}}, "device.os.name")
    'iOS'
    """
    if name in fields or "." not in name:
        return fields.get(name)
    found: object = fields
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def head(name: str) -> str:
    """The row's own field that a name reaches into: `device` of `device.name`."""
    return name.partition(".")[0]
