"""Axes: round numbers with names that people say, and a time axis that leaves out what nobody wants to see."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.axis import MOST_SPANS, TimeAxis, day, moment, number, spans_of, ticks

NOON = 1_764_072_000.0  # 2025-11-25 12:00:00Z


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (167, [0, 50, 100, 150, 200]),
        (1, [0, 0.5, 1.0]),
        (3, [0, 1, 2, 3]),
        (12_345, [0, 5_000, 10_000, 15_000]),
        (0, None),
    ],
)
def test_ticks_are_round_numbers(highest: float, expected: list[float] | None) -> None:
    """Steps of 1, 2 or 5 that reach the highest value."""
    if expected is not None:
        assert expected == ticks(highest)
    assert ticks(highest)[-1] >= highest


@given(st.floats(1e-6, 1e12))
def test_there_are_few_ticks(highest: float) -> None:
    """Between two and six, whatever the size."""
    found = ticks(highest)
    assert 2 <= len(found) <= 6
    assert found[-1] >= highest * 0.999


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.5, "0.5"), (166.7, "166.7"), (1_500, "1,500"), (20_000, "20k"), (3e6, "3M"), (2e9, "2G")],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    """A label has room for some characters."""
    assert expected == number(value)


def test_moments_are_utc() -> None:
    """They say so."""
    assert ("2025-11-25 12:00:00Z", "25 Nov") == (moment(NOON), day(NOON))


def test_a_gap_between_sessions_is_left_out() -> None:
    """Each session has the room that its length deserves, the days between them none."""
    axis = TimeAxis([(NOON, NOON + 100), (NOON + 100_000, NOON + 100_300)], 0.0, 422.0)
    (first, second) = axis.spans
    assert (0.0, 100.0) == (first.left, first.right)
    assert (122.0, 422.0) == (second.left, second.right)
    assert [(111.0, 99_900.0)] == axis.breaks()
    assert [50.0, 100.0, 122.0, 272.0] == [axis.x(NOON + at) for at in (50, 5_000, 100_000, 100_150)]


def test_ticks_stand_at_round_times() -> None:
    """Each with the time of day, and the date where it changes; the second session begins with one."""
    axis = TimeAxis([(NOON + 43_000, NOON + 43_400), (NOON + 200_010, NOON + 200_400)], 0.0, 822.0)
    told = [(tick.label, tick.date) for tick in axis.ticks(100)]
    assert [("23:58", "25 Nov"), ("00:00", "26 Nov"), ("00:02", "")] == told[:3]
    assert [("19:33:30", "27 Nov"), ("19:36", ""), ("19:38", ""), ("19:40", "")] == told[3:]


def test_short_gaps_are_none() -> None:
    """Some seconds without a request do not interrupt the axis, and only the longest gaps do."""
    assert 1 == len(spans_of([(0, 1), (25, 26)]))
    many = [(NOON + number * 1_000.0, NOON + number * 1_000.0 + 1) for number in range(100)]
    assert MOST_SPANS == len(spans_of(many))
    assert [] == spans_of([])
    assert [] == TimeAxis([], 0.0, 100.0).ticks()


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.25, 1e4)), min_size=1, max_size=40), st.floats(100, 900))
def test_time_runs_from_left_to_right(said: list[tuple[float, float]], width: float) -> None:
    """Whatever the sessions: later is further right, all is within the plot, and no two ticks collide."""
    pieces, at = [], NOON
    for gap, length in said:
        pieces.append((at + gap, at + gap + length))
        at += gap + length
    axis = TimeAxis(pieces, 46.0, 46.0 + width)
    places = [axis.x(each) for piece in pieces for each in piece]
    assert all(one <= other + 1e-6 for one, other in pairwise(places))
    assert all(45.9 <= each <= 46.1 + width for each in places)
    found = axis.ticks(80.0)
    assert all(other.x - one.x >= 63.9 for one, other in pairwise(found))
    assert all(math.isfinite(tick.x) for tick in found)
    assert len(found) <= width / 60 + 2
