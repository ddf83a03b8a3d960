"""Many numbers in order: all of them, as often as they came, however little memory there is."""

from __future__ import annotations

import os
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.spill import Sorted


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2**64 - 1))), st.integers(1, 9))
def test_numbers_come_back_in_order(said: list[tuple[str, int]], in_memory: int) -> None:
    """Those in the file and those in memory, each as often as it was taken in, and as often as somebody asks."""
    expected: dict[str, list[int]] = defaultdict(list)
    with Sorted[str](in_memory) as numbers:
        for name, number in said:
            numbers.add(name, number)
            expected[name].append(number)
        assert sorted(expected) == sorted(numbers.names())
        for name in (*expected, *expected):
            assert sorted(expected[name]) == list(numbers.under(name))
        assert [] == list(numbers.under("nobody"))


def test_more_than_a_block_comes_back() -> None:
    """What is read from the file in several pieces."""
    with Sorted[int](10_000) as numbers:
        for number in reversed(range(25_000)):
            numbers.add(0, number)
        assert list(range(25_000)) == list(numbers.under(0))


def test_the_file_is_gone_in_the_end() -> None:
    """It has no name, and its descriptor is closed."""
    before = os.listdir("/dev/fd")  # noqa: PTH208
    with Sorted[int](1) as numbers:
        numbers.add(0, 1)
    assert before == os.listdir("/dev/fd")  # noqa: PTH208
