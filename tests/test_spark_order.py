"""Whether a partition's rows come in the order that they were said to have."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from moe_bulk.spark.order import OrderWatch


def watched(*rows: tuple[object, object]) -> OrderWatch:
    """Let rows pass, each of a customer and a time."""
    watch = OrderWatch("who", "when")
    for who, when in rows:
        watch.see({"who": who, "when": when})
    return watch


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("a", 1), ("a", 1), ("a", 2), ("b", 1)],
        [(None, 5), ("a", None), ("a", 1)],  # nulls come first, as Spark sorts
        [("a", datetime(2026, 1, 1, tzinfo=UTC)), ("a", datetime(2026, 1, 2, tzinfo=UTC))],
        [("a", 1), ("a", "1")],  # of two kinds: nobody can say
    ],
)
def test_rows_in_order_are_not_told_of(rows: list[tuple[object, object]]) -> None:
    """Customers ascend, and for each of them the time."""
    assert watched(*rows).told() is None


def test_the_customer_may_lie_in_a_struct_or_under_another_name() -> None:
    """As the options name it."""
    watch = OrderWatch(("id", "user.id"), "when")
    for row in ({"user": {"id": "a"}, "when": 2}, {"id": "b", "when": 1}, {"user": {"id": "b"}, "when": 1}):
        watch.see(row)
    assert watch.told() is None
    watch.see({"user": {"id": "b"}, "when": 0})
    assert (1, 4) == (watch.late, watch.first_late)
    assert ".sortWithinPartitions('id', 'when')" in (watch.told() or "")


@pytest.mark.parametrize(
    ("rows", "late", "first"),
    [
        ([("a", 2), ("a", 1)], 1, 2),
        ([("a", 1), ("b", 1), ("a", 2)], 1, 3),  # not together: nobody sorted
        ([("a", 1), ("a", None), ("a", 0)], 1, 2),
        ([("a", 3), ("a", 2), ("a", 1)], 2, 2),
    ],
)
def test_rows_that_are_late_are_told_with_the_remedy(rows: list[tuple[object, object]], late: int, first: int) -> None:
    """How many, and which is the first."""
    watch = watched(*rows)
    assert (late, first) == (watch.late, watch.first_late)
    assert ".sortWithinPartitions('who', 'when')" in (watch.told() or "")
