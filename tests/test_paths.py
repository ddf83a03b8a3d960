"""Names with dots reach into nested objects, and a column that is called so wins."""

from __future__ import annotations

import pytest

from moe_bulk.paths import at, head


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "1"),
        ("device.name", "Pixel 9"),
        ("device.os.name", "Android"),
        ("device", {"name": "Pixel 9", "os": {"name": "Android"}}),
        ("literal.name", "this one"),
        ("empty.name", None),
        ("device.none", None),
        ("device.name.first", None),
        ("list.0", None),
        ("nowhere", None),
        ("nowhere.at.all", None),
        (".", None),
    ],
)
def test_what_stands_under_a_name(name: str, expected: object) -> None:
    """Nothing where nothing stands, or where it would lie in something that is no object."""
    fields: dict[str, object] = {
        "plain": "1",
        "device": {"name": "Pixel 9", "os": {"name": "Android"}},
        "literal.name": "this one",
        "literal": {"name": "not this one"},
        "empty.name": None,
        "empty": {"name": "not this one"},
        "list": ["a"],
    }
    assert expected == at(fields, name)


@pytest.mark.parametrize(("name", "expected"), [("device", "device"), ("device.os.name", "device"), ("", "")])
def test_the_row_s_own_field(name: str, expected: str) -> None:
    """It is what stands before the first dot."""
    assert expected == head(name)
