"""Moments of a window, kept small."""

from __future__ import annotations

import math
import sys

from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.times import SPARE, Times

moments = st.lists(st.floats(0, 1e9), max_size=50).map(sorted)


@given(moments, st.integers(0, 50))
def test_what_is_past_does_not_count(times: list[float], past: int) -> None:
    """The others are as they were."""
    found = Times(times)
    found.begin_at(min(past, len(times)))
    assert times[past:] == list(found.kept[found.first :])
    assert len(times[past:]) == len(found)
    assert min(times[past:], default=math.inf) == found.earliest


@given(moments, st.integers(0, 50), st.floats(0, 1e9))
def test_none_is_later_than_it_may_be(times: list[float], past: int, at: float) -> None:
    """Those that are past do not come back."""
    found = Times(times)
    found.begin_at(min(past, len(times)))
    found.clamp(at)
    assert [min(each, at) for each in times[past:]] == list(found.kept[found.first :])


def test_memory_is_that_of_one_window() -> None:
    """However many have come and gone, there is room for those that count, at some eight bytes each."""
    found, window = Times(), 20_000
    for number in range(10 * window):
        found.kept.append(number)
        found.begin_at(max(0, len(found.kept) - window))
    assert window == len(found)
    assert 9 * window == found.kept[found.first]
    assert sys.getsizeof(found.kept) < 8 * (window * 5 / 4 + SPARE)
