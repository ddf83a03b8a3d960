"""Amounts as people say them."""

from __future__ import annotations

import pytest

from moe_bulk.amounts import counted, duration, lasting, size


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (4.9e9, "4.9 GB"), (1.234e15, "1,234.0 TB")],
)
def test_sizes(count: float, expected: str) -> None:
    """In the unit that leaves few digits."""
    assert expected == size(count)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.26, "0.3 s"),
        (9.94, "9.9 s"),
        (9.99, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (30_000, "8 h 20 min"),
        (86_399.9, "1 d"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    """In two units at most."""
    assert expected == duration(seconds)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (0.25, "0.25 s"),
        (3.04, "3.0 s"),
        (59.6, "1 min"),
        (42, "42 s"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (7_490, "2 h 5 min"),
        (7_510, "2 h 5 min"),
        (86_400 * 3 + 3_600 * 4, "3 d 4 h"),
        (86_400 * 400, "400 d"),
    ],
)
def test_how_long_something_took(seconds: float, expected: str) -> None:
    """Two units at most, rounded, and what matters of short times."""
    assert expected == lasting(seconds)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0, "row"), "0 rows"),
        ((1, "row"), "1 row"),
        ((1_234, "row"), "1,234 rows"),
        ((2, "retry", "retries"), "2 retries"),
    ],
)
def test_how_many(given: tuple[int, str], expected: str) -> None:
    """One of them is told as one."""
    assert expected == counted(*given)
