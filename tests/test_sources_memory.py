"""Rows in memory: any mapping, at its place in the order in which it came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pytest

from moe_bulk.record import RAW_KEPT, Position, Row
from moe_bulk.sources import row_in_memory


class Hostile(Mapping[str, object]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> object:
        """Refuse."""
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        """Promise one field."""
        return iter(("a",))

    def __len__(self) -> int:
        """Promise one field."""
        return 1


class Shy:
    """An object that does not want to be shown."""

    def __repr__(self) -> str:
        """Refuse."""
        raise RuntimeError


@pytest.mark.parametrize("item", [{"a": 1, "b": None}, MappingProxyType({"a": 1, "b": None})])
def test_any_mapping_is_a_row(item: Mapping[str, object]) -> None:
    """Its values stay what they are; it is copied, so that its owner may use it again."""
    row = row_in_memory(item, 4)

    assert Row(Position("rows", 5, 4), {"a": 1, "b": None}) == row
    assert item is not row.fields


@pytest.mark.parametrize(
    ("item", "problem", "raw"),
    [
        (["u-1"], "a row is a mapping of field names to values, not list", b"['u-1']"),
        ("u-1", "a row is a mapping of field names to values, not str", b"'u-1'"),
        (None, "a row is a mapping of field names to values, not NoneType", b"None"),
        (Hostile(), "the row cannot be read: RuntimeError", b""),
        (Shy(), "the row cannot be read: RuntimeError", b""),
    ],
)
def test_what_is_no_mapping_is_a_bad_row(item: object, problem: str, raw: bytes) -> None:
    """It is a result like any other, never a crash."""
    assert Row(Position("rows", 1, 0), None, problem, raw, len(raw)) == row_in_memory(item, 0)


def test_of_a_large_object_only_the_beginning_is_kept() -> None:
    """As of any bad row."""
    row = row_in_memory("x" * 100_000, 0)
    assert (RAW_KEPT, 100_002) == (len(row.raw), row.raw_bytes)
